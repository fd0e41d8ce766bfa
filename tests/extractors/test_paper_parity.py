"""Original packages side by side with ours, on real clips that the golden run does not have. Slow: ``-m parity``.

The originals run as their authors call them: own spectrograms, own tokenizers, torchaudio's resampling. Only what
downloads is replaced (a pretrained text model by the same class with our weights). The end of the run prints what was
measured.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from av_bench import extractors
from av_bench.contracts import VideoRequest
from av_bench.extractors import frontends, imagebind
from av_bench.media.decode import decode
from av_bench.media.resample import resample
from av_bench.networks.packages import model_file, quiet
from tests.extractors import golden_pipeline as gold

pytestmark = [
    pytest.mark.paper,
    pytest.mark.parity,
    gold.needs_golden,
    gold.needs_package("hear21passt", "panns_inference", "torchvggish", "torchaudio", "torchvision", "soundfile"),
]


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100, 48_000])
def test_waveforms(sounds: list[Path], rate: int) -> None:
    ours = torch.cat([decode(path).waveform(rate, gold.SECONDS) for path in sounds])
    gold.note(
        f"waveform {rate} Hz", "torchaudio", ours, torch.cat([gold.published_load(p, rate) for p in sounds]), 1e-5
    )


def test_resampler_on_unusual_rates(sounds: list[Path]) -> None:
    import torchaudio

    audio, _ = gold.raw(sounds[1])
    for old, new in ((22_050, 16_000), (24_000, 44_100), (48_000, 44_100), (8_000, 32_000)):
        ours, name = resample(audio, old, new), f"resample {old} to {new} Hz"
        gold.note(name, "torchaudio.transforms", ours, torchaudio.transforms.Resample(old, new)(audio), 1e-5)
        # The functional form, which ImageBind's loader uses, builds its kernel in float32: it is the noisier one.
        gold.note(name, "torchaudio.functional", ours, torchaudio.functional.resample(audio, old, new), 1e-3)


@pytest.mark.parametrize("mode", ["center", "short"])
def test_resized_frames_are_torchvisions_bit_for_bit(mode: Any) -> None:
    import av
    from torchvision.transforms import v2

    crop: list[Any] = [v2.CenterCrop(224)] if mode == "center" else []
    original = v2.Compose([v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True), *crop])
    request = VideoRequest(1.0, 224, mode)
    for clip in [*gold.SIDE_CLIPS, "F8Zt3mYlOqU_000094", "short_a", "0jZtLuEdjrk_000110"]:
        path = gold.SHARED / f"clips/{clip}.mp4"
        shown = decode(path, [request], 3.0, audio=False).frames(request)
        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0) if f.time < 3.5]
        candidates = {original(torch.from_numpy(f).permute(2, 0, 1)).numpy().tobytes() for f in frames}
        assert len(shown) == 3
        missing = sum(frame.numpy().tobytes() not in candidates for frame in shown)
        gold.note(f"frames of {clip}, {mode}", "torchvision v2", missing, 0, 0.5, absolute=True)


def test_passt(sounds: list[Path], tmp_path: Path) -> None:
    state = gold.rebuild("passt")
    torch.save(state, tmp_path / "passt.pt")
    ours = extractors.load("passt", tmp_path / "passt.pt").features(sounds, gold.SECONDS)
    with quiet():
        mel = model_file("hear21passt.models.preprocess").AugmentMelSTFT(
            n_mels=128, sr=32000, win_length=800, hopsize=320, n_fft=1024, freqm=48, timem=192, htk=False, fmin=0.0,
            fmax=None, norm=1, fmin_aug_range=10, fmax_aug_range=2000,
        )  # fmt: skip
        net = model_file("hear21passt.models.passt").get_model("passt_s_swa_p16_128_ap476", pretrained=False)
        net.load_state_dict(state)
        original = model_file("hear21passt.wrapper").PasstBasicWrapper(mel=mel, net=net, mode="all").eval()
        waves = torch.stack([frontends.fit(gold.published_load(path, 32_000), 320_000) for path in sounds])
        with torch.inference_mode():
            reference, mels = original(waves), original.mel(waves)
    gold.note("PaSST log-mel", "hear21passt", frontends.passt_mel(waves), mels, 1e-4, absolute=True)
    gold.note("PaSST embedding", "hear21passt", ours["embedding"], reference[:, 527:], 1e-4)
    gold.note("PaSST logits", "hear21passt", ours["logits"], reference[:, :527], 1e-4)


def test_panns(sounds: list[Path], tmp_path: Path) -> None:
    state = gold.rebuild("panns")
    torch.save({"model": state}, tmp_path / "panns.pth")
    network = extractors.load("panns", tmp_path / "panns.pth")
    with quiet():
        original = model_file("panns_inference.models").Cnn14(16_000, 512, 160, 64, 50, 8000, 527).eval()
    original.load_state_dict(state)
    for path in sounds:
        wave = gold.published_load(path, 16_000)[None]
        ours = network.features([path], gold.SECONDS)
        with torch.inference_mode():
            reference = original(wave)
            mel = original.logmel_extractor(original.spectrogram_extractor(wave))[0, 0]
        mels = frontends.decibel_mel(wave, 16_000, 512, 160, 50.0, 8000.0)[0]
        gold.note(f"PANNs log-mel (dB), {path.stem}", "panns-inference", mels, mel, 1e-3, absolute=True)
        gold.note(f"PANNs embedding, {path.stem}", "panns-inference", ours["embedding"], reference["embedding"], 1e-4)
        probability = torch.sigmoid(torch.from_numpy(ours["logits"]))
        gold.note(f"PANNs sigmoid, {path.stem}", "panns-inference", probability, reference["clipwise_output"], 1e-4)


def test_vggish(sounds: list[Path], tmp_path: Path) -> None:
    state = gold.rebuild("vggish")
    torch.save(state, tmp_path / "vggish.pth")
    network = extractors.load("vggish", tmp_path / "vggish.pth")
    package = model_file("torchvggish.torchvggish")
    original = package.VGG(package.make_layers(), postprocess=False).eval()
    original.load_state_dict(state)
    examples_of = model_file("torchvggish.vggish_input").waveform_to_examples
    for path in sounds:
        wave = gold.published_load(path, 16_000)
        examples = examples_of(wave.numpy(), 16_000).detach()
        ours = network.features([path], gold.SECONDS)["embedding"][0]
        with torch.inference_mode():
            rectified = original(examples)
        mel = frontends.vggish_examples(wave[None])[0]
        gold.note(f"VGGish log-mel, {path.stem}", "torchvggish", mel, examples[:, 0], 1e-4, absolute=True)
        gold.note(f"VGGish after ReLU, {path.stem}", "torchvggish", ours.clip(min=0), rectified, 1e-4)


def test_imagebind_audio_front_end(sounds: list[Path]) -> None:
    """Resampling and filter bank from torchaudio, as ImageBind's data code combines them.

    The installed pytorchvideo (0.1.5) divides by the number of clips; the commit that the published fork pins divides
    by one less. Its rule is written out here: of a file of d seconds, clip i of 3 starts at i (d - 2) / 2.
    """
    import torchaudio

    extractor = imagebind.ImageBindAudio(None, "none")
    for path in sounds:
        audio, rate = gold.raw(path)
        audio = torchaudio.functional.resample(audio, rate, 16_000)
        mels = []
        for index in range(3):
            start = Fraction(max(audio.shape[1] / 16_000 - 2, 0.0)) * index / 2
            clip = audio[:, int(start * 16_000) : int((start + 2) * 16_000)]
            clip -= clip.mean()
            bank = torchaudio.compliance.kaldi.fbank(
                clip, htk_compat=True, sample_frequency=16_000, use_energy=False, window_type="hanning",
                num_mel_bins=128, dither=0.0, frame_length=25, frame_shift=10,
            ).T  # fmt: skip
            mels.append((torch.nn.functional.pad(bank, (0, 204 - bank.shape[1])) + 4.268) / 9.138)
        ours = frontends.imagebind_mel(extractor.prepare(decode(path), gold.SECONDS))[:, 0]
        gold.note(f"ImageBind fbank, {path.stem}", "torchaudio", ours, torch.stack(mels), 2e-3, absolute=True)


def test_synchformer_mel(sounds: list[Path]) -> None:
    import torchaudio

    original = torchaudio.transforms.MelSpectrogram(16_000, n_fft=1024, win_length=400, hop_length=160, n_mels=128)
    for path in sounds:
        wave = gold.published_load(path, 16_000, centre=False)
        segments = wave.unfold(0, 10_240, 5_120)
        mels = torch.nn.functional.pad(torch.log(original(segments) + 1e-6), (0, 1))
        reference = (mels + 4.2677393) / (2 * 4.5689974)
        ours = frontends.synchformer_mel(wave[None])[0, :, 0]
        gold.note(f"Synchformer log-mel, {path.stem}", "torchaudio", ours, reference, 1e-4, absolute=True)
