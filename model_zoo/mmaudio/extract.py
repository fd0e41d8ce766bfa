"""Features of media with a codec and a conditioner: ``python -m model_zoo.mmaudio.extract``.

    python -m model_zoo.mmaudio.extract --table train.tsv --data videos --rate 16k --video --out features/vggsound
    python -m model_zoo.mmaudio.extract --table clotho.csv --data sounds --rate 16k --rule code --out features/clotho

Start it as often as there are GPUs and machines, with the same arguments; start it again after a crash.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from av_bench.contracts import AvBenchError, Decoded, MediaError, Reason, UsageError
from av_bench.devices import check_device
from av_bench.media import DecodedMedia, decode
from model_zoo.mmaudio.interfaces import Codec, Conditioner
from model_zoo.mmaudio.logs import report_error
from model_zoo.mmaudio.plan import Plan
from model_zoo.mmaudio.units import extract, prepare, said, unfinished

SILENCE = 1e-6  # peak below which the published code refuses a crop
PEAK = 0.95  # crops are scaled to this peak for training (published code)


class TrainingCodec(Codec, Protocol):
    """A codec that also says how many samples a latent frame stands for."""

    samples_per_latent: int


class MediaFeatures:
    """An ``Encoder`` for ``units.extract`` made of the networks that sampling uses.

    ``seconds`` is the length of a training clip; ``window`` what the codec needs for it, whole latent frames.
    """

    def __init__(
        self, codec: TrainingCodec, conditioner: Conditioner, seconds: float = 8.0, device: str = "cpu"
    ) -> None:
        if not 0 < seconds < math.inf:
            raise UsageError(f"extraction: the length of a training clip must be a positive number, got {seconds}")
        self.codec, self.conditioner, self.seconds = codec, conditioner, seconds
        self.device = torch.device(device)
        self.samples = codec.latent_len(seconds) * codec.samples_per_latent
        self.window = self.samples / codec.sample_rate
        self.codec.to(self.device)
        self.conditioner.to(self.device)
        self.fingerprint = f"{_weights_digest(codec)}-{conditioner.fingerprint}-{seconds:g}"

    @torch.no_grad()
    def text(self, text: str) -> torch.Tensor:
        """Features (Lt, Dt) of a text."""
        return self.conditioner.text(text)

    def read(self, path: Path, video: bool) -> DecodedMedia:
        """The whole sound, and with ``video`` the frames of the first seconds."""
        return decode(path, self.conditioner.requests if video else (), self.seconds if video else None)

    @torch.no_grad()
    def latents(self, media: Decoded, start: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and deviation (N, C) of a crop: mono, scaled to a peak of 0.95.

        MediaError when the recording ends before the crop does, or the crop is silent.
        """
        whole = media.waveform(self.codec.sample_rate, None, remove_mean=False)
        wave = whole[round(start * self.codec.sample_rate) :][: self.samples]
        if len(wave) < self.samples:
            detail = f"{len(wave)} samples from {start:.2f} s at {self.codec.sample_rate} Hz, {self.samples} are needed"
            raise MediaError(media.path, Reason.TOO_SHORT_AUDIO, detail)
        peak = float(wave.abs().max())
        if peak <= SILENCE:
            raise MediaError(media.path, Reason.SILENT, f"nothing is heard from {start:.2f} s on")
        mean, std = self.codec.encode((wave * (PEAK / peak))[None].to(self.device))
        return mean[0].float().cpu(), std[0].float().cpu()

    @torch.no_grad()
    def video(self, media: Decoded) -> tuple[torch.Tensor, torch.Tensor]:
        """Visual (Lc, Dc) and synchronisation (Ls, Ds) features of the first seconds."""
        return self.conditioner.video(media, self.seconds)


def _weights_digest(codec: Codec) -> str:
    """16 hex digits that change with the codec's class and weights."""
    digest = hashlib.sha256(type(codec).__name__.encode())
    if isinstance(codec, torch.nn.Module):
        for key, value in sorted(codec.state_dict().items()):
            digest.update(key.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> int:
    """One worker from the command line; returns the exit code, 0 when this worker found nothing more to do."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.mmaudio.extract",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", default="clips", help="set by name or YAML file; clips is any folder")
    parser.add_argument("--data", required=True, type=Path, help="folder of the media files")
    parser.add_argument("--table", type=Path, help="jsonl, csv or tsv with id or file, and text, caption or label")
    parser.add_argument("--out", required=True, type=Path, help="feature folder")
    parser.add_argument("--rate", required=True, choices=("16k", "44k"), help="audio rate of the codec")
    parser.add_argument("--vae", type=Path, help="a VAE that vae_training wrote, in place of the published one")
    parser.add_argument("--video", action="store_true", help="with visual features, of the first seconds of each file")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a training clip")
    parser.add_argument("--rule", choices=("paper", "code"), default="paper", help="how recordings are cut into crops")
    parser.add_argument("--crops", type=int, default=5, help="at most so many crops of a recording")
    parser.add_argument("--shard-size", type=int, default=4096, help="samples per shard")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    given = parser.parse_args(arguments)
    try:
        return _work(given)
    except (AvBenchError, OSError) as error:
        return report_error(error)


def _work(given: argparse.Namespace) -> int:
    from model_zoo.mmaudio.codec import OfficialCodec
    from model_zoo.mmaudio.conditions import OfficialConditioner
    from protocols.load import SetRequest, load_set, read_clips

    check_device(given.device)
    found = read_clips(load_set(given.set), SetRequest(data=given.data, table=given.table)).clips
    clips = [replace(clip, text=clip.text or clip.label) for clip in found]  # class names are texts (section 3.5.1)
    encoder = MediaFeatures(OfficialCodec(given.rate, given.vae), OfficialConditioner(), given.seconds, given.device)
    plan = Plan(given.rule, given.crops, given.video, given.shard_size)
    for name in extract(given.out, clips, plan, encoder):
        print(f"{given.out / name}: done", file=sys.stderr, flush=True)
    work = prepare(given.out, clips, plan, encoder)
    print(f"{given.out}: {said(given.out, work)}")
    left = unfinished(given.out, work)
    print(f"{given.out}: {len(left)} shards are still in other workers' hands" if left else f"{given.out}: complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
