"""AudioLDM 2 in this process, through diffusers (extra ``audioldm2``): text in, 16 kHz mono out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any, ClassVar

from av_bench.contracts import Clip, ClipSet, Generated, Modality, UsageError, clip_seed
from model_zoo.baselines.inprocess import InProcessBaseline
from model_zoo.baselines.schema import Manifest
from model_zoo.baselines.site import Site

_PACKAGES = ("diffusers", "transformers")


class AudioLDM2(InProcessBaseline):
    """One candidate per text (no re-ranking), seeded per sample."""

    options: ClassVar[Mapping[str, str]] = {
        "steps": "of the DDIM sampler (default: the manifest's, the official script's 200)",
        "guidance": "strength of guidance (default: the manifest's, the official script's 3.5)",
        "negative_prompt": "text to steer away from",
    }

    def __init__(
        self,
        manifest: Manifest,
        site: Site,
        steps: float | None = None,
        guidance: float | None = None,
        negative_prompt: str | None = None,
    ) -> None:
        self.manifest, self.name = manifest, manifest.name
        self.folder = Path(str(site.weights))
        self.sample_rate = manifest.native.rate
        self.conditions = frozenset[Modality]({"text"})
        self.training_sets = tuple(s.name for s in manifest.training_sets)
        self.metric_networks = manifest.metric_networks_used
        self.steps = int(manifest.driver.options["steps"] if steps is None else steps)
        self.guidance = float(manifest.driver.options["guidance"] if guidance is None else guidance)
        self.negative_prompt = negative_prompt
        self.device, self.seconds = "cpu", 0.0
        self._pipe: Any = None
        self._made = 0

    @staticmethod
    def obstacles(site: Site) -> list[str]:
        """Why it cannot run here."""
        lacking = [name for name in _PACKAGES if util.find_spec(name) is None]
        found = [f'{name} is not installed: pip install "av-bench[audioldm2]"' for name in lacking]
        return [*found, *site.missing(("weights",))]

    def place(self, device: str) -> None:
        """Where to compute."""
        self.device = device

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Refuse sets without texts; load the pipeline from the weights folder, never from the network."""
        del seed
        lacking = [clip.id for clip in clips.clips if clip.text is None]
        if lacking:
            raise UsageError(
                f"baseline {self.name} needs text for every clip; {len(lacking)} have none: {lacking[0]} ..."
            )
        self.seconds = seconds
        diffusers = import_module("diffusers")
        try:
            pipe = diffusers.AudioLDM2Pipeline.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder} is not a folder of AudioLDM 2 as diffusers saves it: {error}") from error
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe.to(self.device)
        self.parameters = sum(p.numel() for p in pipe.unet.parameters())

    def generate(self, clips: Sequence[Clip], seed: int, samples: int = 1) -> Iterator[Generated]:
        """One at a time: a batch would change the numbers, and the clock is for a batch of one."""
        for clip in clips:
            for k in range(samples):
                yield self._one(clip, k, seed)

    def _one(self, clip: Clip, k: int, seed: int) -> Generated:
        import torch

        random = torch.Generator("cpu").manual_seed(clip_seed(seed, clip.id, k))
        started = self._clock()
        made = self._pipe(
            clip.text,
            negative_prompt=self.negative_prompt,
            audio_length_in_s=self.seconds,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            num_waveforms_per_prompt=1,
            generator=random,
        )
        seconds = self._clock() - started
        self._made += 1
        warm = self._made > self.manifest.driver.warmup
        audio = torch.as_tensor(made.audios[0]).float().reshape(1, -1)
        timings = {"generation": seconds} if warm else {}
        return Generated(clip.id, k, audio, self.sample_rate, timings=timings)

    def _clock(self) -> float:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def describe(self, folder: Path) -> dict[str, Any]:
        """For the record."""
        del folder
        from importlib.metadata import version

        return {
            "manifest": self.manifest.digest,
            "paper": [vars(row) for row in self.manifest.paper],
            "settings": {"steps": self.steps, "guidance": self.guidance, "negative_prompt": self.negative_prompt},
            "fingerprint": {"packages": {name: version(name) for name in _PACKAGES}},
        }
