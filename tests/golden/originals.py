"""The original packages, built by their own constructors and called as their authors call them.

Nothing of them is copied; what would download is replaced: pretrained text models by the same classes without weights,
``torchaudio.load`` (which wants a codec package) by soundfile. Needs the extra ``paper``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from av_bench.networks.packages import model_file, quiet, uninitialised
from tests.golden.weights import weights_of

CAPTIONS = ("a wooden mallet strikes a metal rod", "a bell! far away, then near")
SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 1024,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 378, "layers": 2, "width": 64, "head_width": 32, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49_408, "width": 1024, "heads": 16, "layers": 2},
}
SMALL_VOCODERS: dict[str, dict[str, Any]] = {
    "16k": {"num_mels": 12, "use_tanh_at_final": True, "use_bias_at_final": True},
    "44k": {"num_mels": 20, "use_tanh_at_final": False, "use_bias_at_final": False},
}
RATES, CHANNELS = [4, 2, 2], 32
# The part of a two-tower network that a golden is about (a pattern of its keys).
PARTS = {
    "clap-audio": r"^audio_(branch|projection)\.",
    "clap-text": r"^text_(branch|projection)\.",
    "msclap-audio": r"^audio_encoder\.",
    "msclap-text": r"^caption_encoder\.",
    "imagebind-audio": r"\.audio\.",
    "imagebind-video": r"\.vision\.",
}


def filled(module: nn.Module, only: str = "") -> dict[str, Tensor]:
    """Give a module derived weights; returns its state dict (or the keys that match ``only``), sharing memory."""
    state = weights_of(module.state_dict(), only)
    module.load_state_dict(state, strict=not only, assign=True)
    module.eval().requires_grad_(False)
    return state


# --------------------------------------------------------------------------- sound


def raw(path: Path) -> tuple[Tensor, int]:
    """``(channels, samples)`` and the sample rate, by soundfile."""
    import soundfile

    data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(np.ascontiguousarray(data.T)), rate


def loaded(path: Path, rate: int, seconds: float, *, centre: bool = True) -> Tensor:
    """The published load rule with torchaudio: channel mean, file mean removed, resampled, cut."""
    import torchaudio

    audio, old = raw(path)
    mono = audio.mean(dim=0)
    mono = mono - mono.mean() if centre else mono
    wave: Tensor = torchaudio.transforms.Resample(old, rate)(mono)[: int(rate * seconds)]
    return wave


def decibel_mel(wave: Tensor, rate: int, n_fft: int, hop: int, low: float, high: float) -> Tensor:
    """torchlibrosa as PANNs and HTSAT set it up: ``(frames, 64)`` in dB."""
    import torchlibrosa

    spectrogram = torchlibrosa.Spectrogram(n_fft=n_fft, hop_length=hop, win_length=n_fft, freeze_parameters=True)
    mel = torchlibrosa.LogmelFilterBank(
        sr=rate, n_fft=n_fft, n_mels=64, fmin=low, fmax=high, ref=1.0, amin=1e-10, top_db=None, freeze_parameters=True
    )
    result: Tensor = mel(spectrogram(wave[None]))[0, 0]
    return result


def passt_mel() -> nn.Module:
    """hear21passt's front end with the settings of its ``get_basic_model``."""
    with quiet():
        mel: nn.Module = model_file("hear21passt.models.preprocess").AugmentMelSTFT(
            n_mels=128, sr=32000, win_length=800, hopsize=320, n_fft=1024, freqm=48, timem=192, htk=False, fmin=0.0,
            fmax=None, norm=1, fmin_aug_range=10, fmax_aug_range=2000,
        )  # fmt: skip
    return mel.eval()


def synchformer_mel(wave: Tensor) -> Tensor:
    """torchaudio's spectrogram on the published segments: ``(segments, 128, 66)``."""
    import torchaudio

    spectrogram = torchaudio.transforms.MelSpectrogram(16_000, n_fft=1024, win_length=400, hop_length=160, n_mels=128)
    mels = torch.nn.functional.pad(torch.log(spectrogram(wave.unfold(0, 10_240, 5_120)) + 1e-6), (0, 1))
    scaled: Tensor = (mels + 4.2677393) / (2 * 4.5689974)
    return scaled


class _PinnedSampler:
    """Clip starts of pytorchvideo at ae9cfc6, the commit that the published ImageBind fork pins (0.1.5: other starts).

    Clip i of n starts at i (d - length) / max(n - 1, 1) of a file of d seconds.
    """

    def __init__(self, clip_duration: float, clips_per_video: int) -> None:
        self.length, self.count, self.index = clip_duration, clips_per_video, 0

    def __call__(self, _end: float, duration: float, annotation: None) -> tuple[float, float, int, int, bool]:
        del annotation
        start = self.index * max(duration - self.length, 0.0) / max(self.count - 1, 1)
        self.index = (self.index + 1) % self.count
        return start, start + self.length, 0, 0, self.index == 0


@contextlib.contextmanager
def imagebind_data() -> Iterator[Any]:
    """imagebind's data module: pkg_resources and a torchvision module that went are stood in for, as is the sampler."""
    from torchvision.transforms import _functional_tensor

    absent = {
        "torchvision.transforms.functional_tensor": _functional_tensor,
        "pkg_resources": sys.modules.get("pkg_resources", ModuleType("pkg_resources")),
    }
    with mock.patch.dict(sys.modules, absent), quiet():
        data = model_file("imagebind.data")
    with (
        mock.patch.object(data, "ConstantClipsPerVideoSampler", _PinnedSampler),
        mock.patch.object(data.torchaudio, "load", raw),
    ):
        yield data


# --------------------------------------------------------------------------- networks


def panns() -> nn.Module:
    """Cnn14 at 16 kHz."""
    with quiet(), uninitialised():
        network: nn.Module = model_file("panns_inference.models").Cnn14(16_000, 512, 160, 64, 50, 8000, 527)
    return network


def vggish() -> nn.Module:
    """VGGish without quantisation; its last layer is a ReLU that the published evaluation takes off."""
    package = model_file("torchvggish.torchvggish")
    with uninitialised():
        network: nn.Module = package.VGG(package.make_layers(), postprocess=False)
    return network


def passt() -> nn.Module:
    """PaSST with 16 px patches and a stride of 10."""
    package = model_file("hear21passt.models.passt")
    with quiet(), uninitialised():
        network: nn.Module = package.get_model("passt_s_swa_p16_128_ap476", pretrained=False)
    package.first_RUN = False  # no shapes on the terminal
    return network


def imagebind() -> nn.Module:
    """ImageBind huge; memory that is never written is never taken."""
    with quiet(), uninitialised():
        network: nn.Module = model_file("imagebind.models.imagebind_model").imagebind_huge(pretrained=False)
    return network


def laion_clap() -> tuple[nn.Module, dict[str, Any]]:
    """HTSAT-base with RoBERTa, and the package's audio settings."""
    from transformers import RobertaConfig, RobertaModel

    package = model_file("laion_clap.clap_module.model")
    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    settings = json.loads((Path(package.__file__).parent / "model_configs/HTSAT-base.json").read_text())
    settings["text_cfg"]["model_type"] = "roberta"
    with quiet(), uninitialised(), mock.patch.object(package.RobertaModel, "from_pretrained") as pretrained:
        pretrained.return_value = RobertaModel(config)
        network: nn.Module = package.CLAP(**settings, enable_fusion=False, fusion_type="None")
    return network, settings["audio_cfg"]


def laion_features() -> Any:
    """laion_clap's ``get_audio_features``: it imports its parts as top-level modules and reads tokenizers at import."""
    import transformers

    folder = Path(model_file("laion_clap.clap_module.model").__file__).parents[1]
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(mock.patch.object(sys, "path", [str(folder), *sys.path]))
        for name in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
            stack.enter_context(mock.patch.object(getattr(transformers, name), "from_pretrained", return_value=None))
        return model_file("laion_clap.training.data").get_audio_features


def msclap() -> nn.Module:
    """MS-CLAP 2023: HTSAT and GPT-2."""
    from transformers import GPT2Config, GPT2Model

    package = model_file("msclap.models.clap")
    with quiet(), uninitialised(), mock.patch.object(package.AutoModel, "from_pretrained") as pretrained:
        pretrained.return_value = GPT2Model(GPT2Config())
        network: nn.Module = package.CLAP("HTSAT", 44_100, 1024, 320, 64, 50, 8000, 527, 768, "gpt2", 768, 1024)
    return network


def open_clip() -> nn.Module:
    """open_clip's CLIP with few and narrow layers, the patches and tokens of ViT-H-14-378."""
    from open_clip.model import CLIP

    with quiet(), uninitialised():
        network: nn.Module = CLIP(**SMALL_CLIP)
    return network


def bigvgan(rate: str) -> nn.Module:
    """A small BigVGAN of the kind that MMAudio's 16 or 44.1 kHz model uses."""
    from bigvgan import BigVGAN
    from bigvgan.env import AttrDict

    settings = AttrDict(
        **SMALL_VOCODERS[rate], resblock="1", upsample_rates=RATES, upsample_kernel_sizes=[2 * r for r in RATES],
        upsample_initial_channel=CHANNELS, resblock_kernel_sizes=[3, 7, 11],
        resblock_dilation_sizes=[[1, 3, 5]] * 3, activation="snakebeta", snake_logscale=True,
    )  # fmt: skip
    with quiet():
        network: nn.Module = BigVGAN(settings)
        network.remove_weight_norm()
    return network


# --------------------------------------------------------------------------- tokenizers


def vocabulary(folder: Path, kind: str) -> None:
    """A small byte-level vocabulary with some merges, in the files that tokenizers of both programs read."""
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    characters = list(bytes_to_unicode().values())
    merges = ["d o", "do g", "Ġ b", "Ġb o", "n g", "i n", "in g", "s h", "e e", "sh ee", "shee p"]
    words = [*characters, *(merge.replace(" ", "") for merge in merges)]
    if kind == "roberta-base":
        words = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
    table = {word: i for i, word in enumerate(words)}
    if kind == "gpt2":
        table["<|endoftext|>"] = 50_256
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(table))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2" if kind == "gpt2" else "roberta"}))
