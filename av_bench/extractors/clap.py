"""LAION-CLAP with HTSAT-base and RoBERTa, behind CLAP (Wu et al., ICASSP 2023, arXiv 2211.06687).

Checkpoint music_speech_audioset_epoch_15_esc_89.98. Each tower is assembled from the package's own modules, so the
text tower needs no audio weights in memory and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from av_bench.contracts import Decoded, Flavour, MediaError, MissingRequirement, Reason
from av_bench.extractors import frontends
from av_bench.extractors.base import BaseExtractor
from av_bench.extractors.tokens import TokenExtractor
from av_bench.networks.packages import model_file, quiet, uninitialised
from av_bench.weights.fill import Weights, check_stored, load_into, read

RATE, N_FFT, HOP, LOW, HIGH = 48_000, 1024, 480, 50.0, 14_000.0
SAMPLES = 10 * RATE
WITHOUT = ("h5py", "timm", "torchlibrosa", "torchvision", "tqdm", "transformers")  # not used by the audio tower
# Parts of the file that neither embedding uses, and the position table that newer transformers no longer store.
UNUSED = r"logit_scale_[at]$|audio_transform\.|text_transform\.|text_branch\.embeddings\.position_ids$"


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 512))


class _AudioTower(nn.Module):
    def __init__(self, htsat: nn.Module) -> None:
        super().__init__()
        self.audio_branch = htsat
        self.audio_projection = _projection(1024)

    def forward(self, mel: Tensor) -> Tensor:
        hidden = self.audio_branch({"waveform": mel}, device=mel.device)["embedding"]
        return F.normalize(self.audio_projection(hidden), dim=-1)


class _TextTower(nn.Module):
    def __init__(self, roberta: nn.Module) -> None:
        super().__init__()
        self.text_branch = roberta
        self.text_projection = _projection(768)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.text_branch(input_ids=ids, attention_mask=mask)["pooler_output"]
        return F.normalize(self.text_projection(hidden), dim=-1)


class ClapAudio(BaseExtractor):
    """48 kHz mono -> unit embedding of 512."""

    name = "clap-audio"
    weights_name = "laion-clap"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 512)"}
    batch_size = 8

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> ClapAudio:
        """Weights: the official file ("state_dict", prefix "module."); the text tower is not read.

        The stored mel matrix is compared with the one computed here; see ``panns.Panns.build``.
        """
        checkpoint = read(weights, "laion-clap")
        package = model_file("laion_clap.clap_module.htsat", without=WITHOUT)
        config = model_file("laion_clap.clap_module.model", without=WITHOUT).CLAPAudioCfp(
            model_type="HTSAT", model_name="base", sample_rate=RATE, audio_length=1024, window_size=N_FFT,
            hop_size=HOP, fmin=int(LOW), fmax=int(HIGH), class_num=527, mel_bins=64, clip_samples=SAMPLES,
        )  # fmt: skip
        with quiet(), uninitialised(package):
            htsat = package.create_htsat_model(config)
            network = _AudioTower(htsat)
        digest = load_into(
            network, checkpoint, ignore=rf"{UNUSED}|{frontends.STORED_FRONT_END}|text_(branch|projection)\."
        )
        bank = frontends.mel_bank(RATE, N_FFT, 64, LOW, HIGH, scale="slaney", unit_area=True)
        check_stored(checkpoint, "audio_branch.logmel_extractor.melW", bank.T)
        htsat.spectrogram_extractor, htsat.logmel_extractor = nn.Identity(), nn.Identity()
        return cls(network, digest, device, flavour)

    def prepare(self, item: Decoded, seconds: float) -> Tensor:
        """``(480000,)``: whole copies of a clip under 10 s, then zeros; the first 10 s of a longer one.

        The published tool takes a random 10 s of longer audio; none of its protocols has any.
        """
        wave = item.waveform(RATE, seconds)
        if not len(wave):
            raise MediaError(item.path, Reason.TOO_SHORT_AUDIO, "no samples")
        return frontends.fit(wave, SAMPLES, repeat=True)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``(B, 480000)`` -> embedding."""
        assert self.module is not None
        mel = frontends.decibel_mel(batch, RATE, N_FFT, HOP, LOW, HIGH)
        return {"embedding": self.module(mel[:, None])}


class ClapText(TokenExtractor):
    """A caption -> unit embedding of 512."""

    name = "clap-text"
    weights_name = "laion-clap"
    vocabulary = "roberta-base"
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "(B, 512)"}

    @classmethod
    def build(cls, weights: Weights = None, device: str = "cpu", flavour: Flavour = "paper") -> ClapText:
        """Weights as for ``ClapAudio``; the audio tower is not read. Captions also need roberta-base's vocabulary."""
        checkpoint = read(weights, "laion-clap")
        try:
            from transformers import RobertaConfig, RobertaModel
        except ImportError as error:
            raise MissingRequirement(f"clap-text: {error}; pip install 'av-bench[paper]'") from error
        # roberta-base; epsilon and table sizes differ from the defaults of the class.
        config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
        with quiet(), uninitialised():
            network = _TextTower(RobertaModel(config))
        ignore = rf"{UNUSED}|audio_(branch|projection)\."
        extractor = cls(network, load_into(network, checkpoint, ignore=ignore), device, flavour)
        if weights is None:
            extractor.tokenizer()
        return extractor

    def prepare(self, item: str, seconds: float) -> Tensor:
        """int64 ``(2, 77)``: token ids and attention mask."""
        del seconds
        return self.encode(item, cut=True)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """``(B, 2, 77)`` -> embedding."""
        return self.forward_tokens(batch[:, 0], batch[:, 1])

    def forward_tokens(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Token ids and attention mask ``(B, n)`` -> embedding."""
        assert self.module is not None
        return {"embedding": self.module(ids, mask)}
