"""Original packages side by side with ours, on real clips that the golden run does not have. Slow: ``-m parity``.

The originals run as their authors call them: own spectrograms, own tokenizers, torchaudio's resampling. Only what
downloads is replaced (a pretrained text model by the same class with our weights). The end of the run prints what was
measured.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from av_bench import extractors
from av_bench.contracts import VideoRequest
from av_bench.extractors import frontends, imagebind
from av_bench.media import decode
from av_bench.resample import resample
from model_zoo.networks.packages import model_file, quiet
from tests.extractors import golden_pipeline as gold

pytestmark = [
    pytest.mark.paper,
    pytest.mark.parity,
    gold.needs_golden,
    gold.needs_package("hear21passt", "torchaudio", "torchvision", "laion_clap", "msclap", "pytorchvideo", "soundfile"),
]
CLIPS = ["ZYc410CE4Rg_000000", "scene_a", "scene_b", "hitting_bag"]
CAPTIONS = ["playing tennis", "a bongo!", "sheep bleating in the wind, far away, then near " * 6]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The clips' audio as float wav at its own rate and channels: both programs read the same files."""
    import soundfile

    folder, paths = tmp_path_factory.mktemp("sounds"), []
    for clip in CLIPS:
        item = decode(gold.SHARED / f"clips/{clip}.mp4")
        assert item.audio is not None
        paths.append(folder / f"{clip}.wav")
        soundfile.write(paths[-1], item.audio.T.numpy(), item.sample_rate, subtype="FLOAT")
    return paths


def raw(path: Path) -> tuple[Tensor, int]:
    import soundfile

    data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(np.ascontiguousarray(data.T)), rate


def published_load(path: Path, rate: int, *, centre: bool = True) -> Tensor:
    """Channel mean, file mean removed, torchaudio's resampler, first 8 s."""
    import torchaudio

    audio, old = raw(path)
    mono = audio.mean(dim=0)
    mono = mono - mono.mean() if centre else mono
    return torchaudio.transforms.Resample(old, rate)(mono)[: int(rate * gold.SECONDS)]


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100, 48_000])
def test_waveforms(sounds: list[Path], rate: int) -> None:
    ours = torch.cat([decode(path).waveform(rate, gold.SECONDS) for path in sounds])
    gold.note(f"waveform {rate} Hz", "torchaudio", ours, torch.cat([published_load(p, rate) for p in sounds]), 1e-5)


def test_resampler_on_unusual_rates(sounds: list[Path]) -> None:
    import torchaudio

    audio, _ = raw(sounds[1])
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
    for clip in [*CLIPS, "F8Zt3mYlOqU_000094", "short_a", "0jZtLuEdjrk_000110"]:
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
        waves = torch.stack([frontends.fit(published_load(path, 32_000), 320_000) for path in sounds])
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
        wave = published_load(path, 16_000)[None]
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
        wave = published_load(path, 16_000)
        examples = examples_of(wave.numpy(), 16_000).detach()
        ours = network.features([path], gold.SECONDS)["embedding"][0]
        with torch.inference_mode():
            rectified = original(examples)
        mel = frontends.vggish_examples(wave[None])[0]
        gold.note(f"VGGish log-mel, {path.stem}", "torchvggish", mel, examples[:, 0], 1e-4, absolute=True)
        gold.note(f"VGGish after ReLU, {path.stem}", "torchvggish", ours.clip(min=0), rectified, 1e-4)


def test_imagebind_audio_front_end(sounds: list[Path]) -> None:
    """Clip starts from pytorchvideo's sampler, filter bank from torchaudio, as ImageBind's data code combines them."""
    import torchaudio

    sampler_class = model_file("pytorchvideo.data.clip_sampling").ConstantClipsPerVideoSampler
    extractor = imagebind.ImageBindAudio(None, "none")
    for path in sounds:
        audio, rate = raw(path)
        audio = torchaudio.functional.resample(audio, rate, 16_000)
        sampler, mels, last = sampler_class(clip_duration=2, clips_per_video=3), [], False
        while not last:
            start, end, _, _, last = sampler(0.0, audio.shape[1] / 16_000, annotation=None)
            clip = audio[:, int(start * 16_000) : int(end * 16_000)]
            clip -= clip.mean()
            bank = torchaudio.compliance.kaldi.fbank(
                clip, htk_compat=True, sample_frequency=16_000, use_energy=False, window_type="hanning",
                num_mel_bins=128, dither=0.0, frame_length=25, frame_shift=10,
            ).T  # fmt: skip
            mels.append((torch.nn.functional.pad(bank, (0, 204 - bank.shape[1])) + 4.268) / 9.138)
        ours = frontends.imagebind_mel(extractor.prepare(decode(path), gold.SECONDS))[:, 0]
        gold.note(
            f"ImageBind fbank, {path.stem}", "torchaudio, pytorchvideo", ours, torch.stack(mels), 2e-3, absolute=True
        )


def test_synchformer_mel(sounds: list[Path]) -> None:
    import torchaudio

    original = torchaudio.transforms.MelSpectrogram(16_000, n_fft=1024, win_length=400, hop_length=160, n_mels=128)
    for path in sounds:
        wave = published_load(path, 16_000, centre=False)
        segments = wave.unfold(0, 10_240, 5_120)
        mels = torch.nn.functional.pad(torch.log(original(segments) + 1e-6), (0, 1))
        reference = (mels + 4.2677393) / (2 * 4.5689974)
        ours = frontends.synchformer_mel(wave[None])[0, :, 0]
        gold.note(f"Synchformer log-mel, {path.stem}", "torchaudio", ours, reference, 1e-4, absolute=True)


# --------------------------------------------------------------------------- text models


def vocabulary(folder: Path, kind: str) -> None:
    """A small byte-level vocabulary with some merges, in the files both programs read."""
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = ["d o", "do g", "Ġ b", "Ġb o", "n g", "i n", "in g", "s h", "e e", "sh ee", "shee p"]
    words = [*letters, *(merge.replace(" ", "") for merge in merges)]
    if kind == "roberta-base":
        words = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
    table = {word: i for i, word in enumerate(words)}
    if kind == "gpt2":
        table["<|endoftext|>"] = 50_256
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2" if kind == "gpt2" else "roberta"}))


@pytest.fixture
def vocabularies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokenizer files in our weights folder and, for the originals, in the working directory under their hub names."""
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    for kind in ("roberta-base", "gpt2"):
        vocabulary(tmp_path / "home/weights" / kind, kind)
        vocabulary(tmp_path / "work" / kind, kind)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_laion_clap(sounds: list[Path], vocabularies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    state = gold.rebuild("clap")
    path = vocabularies / "clap.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    package = model_file("laion_clap.clap_module.model")
    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    monkeypatch.setattr(package.RobertaModel, "from_pretrained", lambda _name: RobertaModel(config))
    folder = Path(package.__file__).parent / "model_configs"
    settings = json.loads((folder / "HTSAT-base.json").read_text())
    settings["text_cfg"]["model_type"] = "roberta"
    with quiet():
        original = package.CLAP(**settings, enable_fusion=False, fusion_type="None").eval()
    with quiet(), monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder.parents[1]))  # the package imports its parts as top-level modules, too
        for other in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):  # read at import, of no use here
            patch.setattr(getattr(transformers, other), "from_pretrained", lambda _name: None)
        features_of = model_file("laion_clap.training.data").get_audio_features
    original.load_state_dict(state)
    items = [
        features_of({}, published_load(p, 48_000), 480_000, "rand_trunc", "repeatpad", settings["audio_cfg"])
        for p in sounds
    ]
    tokenizer = RobertaTokenizer.from_pretrained("roberta-base")
    ids = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        audio, text = original.get_audio_embedding(items), original.get_text_embedding(dict(ids))
    ours = extractors.load("clap-audio", path).features(sounds, gold.SECONDS)["embedding"]
    gold.note("LAION-CLAP audio", "laion-clap", ours, audio, 1e-4)
    ours = extractors.load("clap-text", path).features(CAPTIONS, gold.SECONDS)["embedding"]
    gold.note("LAION-CLAP text", "laion-clap", ours, text, 1e-4)


def msclap_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """Lively derived weights: batch norms centred on log-mels in dB as a trained network's are."""
    recipe, state = gold.recipe(), {}
    for key, value in network.state_dict().items():
        known = key.replace("audio_encoder.base.htsat.", "audio_branch.")
        rule = recipe.rule_for("clap", known, list(value.shape), str(value.dtype).removeprefix("torch."))
        made = recipe.tensor(key, list(value.shape), rule)
        state[key] = value.clone() if made is None else torch.from_numpy(made)
    return state


@pytest.fixture
def msclap(vocabularies: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """The original wrapper and the file both load, with causal masks in it as older transformers wrote them."""
    from transformers import GPT2Config, GPT2Model

    package = model_file("msclap.models.clap")
    wrapper = model_file("msclap.CLAPWrapper")
    monkeypatch.setattr(package.AutoModel, "from_pretrained", lambda _name: GPT2Model(GPT2Config()))
    with quiet():
        blank = package.CLAP("HTSAT", 44_100, 1024, 320, 64, 50, 8000, 527, 768, "gpt2", 768, 1024)
    state = msclap_weights(blank)
    state["caption_encoder.base.h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    path = vocabularies / "CLAP_weights_2023.pth"
    torch.save({"model": state}, path)
    with quiet():
        original = wrapper.CLAPWrapper(path, version="2023", use_cuda=False)

    def read_audio(path: Path, resample: bool = True) -> tuple[Tensor, int]:
        import torchaudio

        audio, rate = raw(path)  # instead of torchaudio.load, which needs a codec package
        return (torchaudio.transforms.Resample(rate, 44_100)(audio) if resample else audio), 44_100

    original.read_audio = read_audio
    return original, path


def test_msclap(sounds: list[Path], msclap: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    original, path = msclap
    monkeypatch.setattr(random, "randrange", lambda *_: 0)  # the dice show the first window
    reference = original.get_audio_embeddings(sounds)
    ours = extractors.load("msclap-audio", path).features(sounds, gold.SECONDS)["embedding"]
    gold.note("MS-CLAP audio, first window", "msclap", ours, reference, 1e-4)
    assert gold.relative(np.roll(ours, 1, axis=0), reference) > 1e-2


def test_msclap_window_matters_less_than_the_clip(sounds: list[Path], msclap: tuple[Any, Path]) -> None:
    """What the fixed window replaces: the spread of the published random draws, as cosines to the first window."""
    original, path = msclap
    random.seed(0)
    ours = torch.from_numpy(extractors.load("msclap-audio", path).features(sounds[1:3], gold.SECONDS)["embedding"])
    draws = [original.get_audio_embeddings(sounds[1:3]) for _ in range(4)]
    cosines = torch.stack([torch.cosine_similarity(ours, draw) for draw in draws])
    gold.MEASURED.append(
        ("MS-CLAP random windows, 1 - cosine to the first", "msclap", float(1 - cosines.min()), "absolute")
    )
    assert cosines.max() < 1  # the dice do change the feature


@pytest.mark.parametrize("which", [0, 1, 2])
def test_msclap_text(msclap: tuple[Any, Path], which: int) -> None:
    original, path = msclap
    with quiet():
        reference = original.get_text_embeddings([CAPTIONS[which]])
    build: Callable[..., Any] = extractors.load
    ours = build("msclap-text", path).features([CAPTIONS[which]], gold.SECONDS)["embedding"]
    gold.note(f"MS-CLAP text {which}", "msclap", ours, reference, 1e-4)
    if "!" in CAPTIONS[which]:
        strict = build("msclap-text", path, flavour="strict").features([CAPTIONS[which]], gold.SECONDS)["embedding"]
        assert gold.relative(strict, reference) > 1e-3  # the published reading stops one token early
