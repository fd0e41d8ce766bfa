"""MMAudio as a generator: conditions in, sound out (MMAudio, section 3.6)."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from av_bench.contracts import Clip, ClipSet, Generated, Generator, Modality, Reason, UsageError
from av_bench.features.store import Store
from av_bench.runtime.devices import cast_once, finish, own_stream, single_precision
from av_bench.runtime.prefetch import prefetch_map
from model_zoo.mmaudio.flow import matching
from model_zoo.mmaudio.flow.network import Flow, FlowNetwork, Preprocessed
from model_zoo.mmaudio.flow.products import best_for
from model_zoo.mmaudio.interfaces import Codec, Conditioner
from model_zoo.mmaudio.sampling import windows
from model_zoo.mmaudio.sampling.inputs import InputReader, Inputs, check_clips
from model_zoo.mmaudio.sampling.recorded import Recorded
from model_zoo.mmaudio.sampling.settings import OPTIONS, OVERLAP, Conditions, Settings, compiled
from model_zoo.mmaudio.sampling.solve import solve

WARM_UP = 2  # samples before seconds per sample count, as for every other generator
READERS = 3  # threads that decode videos for a GPU


@dataclass
class MMAudio(Generator):
    """A flow network, a codec and a conditioner as one generator.

    The noise of a sample depends on (seed, clip id, k) alone. On a CPU every sample is a batch of its own, so samples
    are the same bit for bit whatever they are generated with; on a GPU ``batch`` samples run together and may differ
    in the last bits of bf16 arithmetic. ``batch`` also bounds the windows of long clips that run together. The state
    stays float32; the network runs in the settings' precision, the codec in full float32. A GPU reads, samples and
    decodes on streams of their own. With ``batch`` 1, and on a CPU, one thing comes after the other, and the seconds of
    a sample are its own.
    """

    name: str
    network: FlowNetwork
    codec: Codec
    conditioner: Conditioner
    settings: Settings = field(default_factory=Settings)
    training_sets: tuple[str, ...] = ()
    store: Store | None = None
    paper: tuple[dict[str, str], ...] = ()
    identity: str = ""  # changes with the weights: samples of others are not taken for its own
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    half: bool = False  # products of the flow network in bf16; ``place`` decides
    arrange_on: frozenset[str] = frozenset()  # device types where the network is taken apart (``FlowNetwork.arrange``)
    seconds: float = 8.0
    watchable: bool = True
    options: ClassVar[Mapping[str, str]] = OPTIONS

    def __post_init__(self) -> None:
        used: dict[Conditions, tuple[Modality, ...]] = {
            "both": ("video", "text"),
            "video": ("video",),
            "text": ("text",),
            "none": (),
        }
        self.settings = self.settings.made_for(self.network.few_step, self.name)
        self.conditions: frozenset[Modality] = frozenset(used[self.settings.conditions])
        self.sample_rate = self.codec.sample_rate
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self._negative: Tensor | None = None
        self._warm = 0  # samples made so far: the first ones are not timed
        self._flow: Flow = compiled(self.network.flow, self.settings.compile)
        self._plan(self.seconds)

    def describe(self, folder: Path) -> dict[str, Any]:
        """What run.json says besides: the rows of the paper's tables that report the same model."""
        del folder
        return {"paper": list(self.paper)}

    def use_store(self, root: Path) -> None:
        """Keep and look for conditions there, where they are kept at all."""
        if self.store is not None:
            self.store = Store(root)

    def place(self, device: str) -> None:
        """Move everything to a device; with bf16 the network's weights become bf16 for good, and where it is to be
        arranged it can afterwards only sample."""
        self.device = torch.device(device)
        self.half = self.settings.half(self.device)
        usual = self.half == (self.device.type == "cuda")
        self.identity = self.identity.partition("@")[0] + ("" if usual else f"@{'bf16' if self.half else 'fp32'}")
        # clips of one call: on a GPU several full batches, between which nothing waits
        self.chunk = 16 if self.device.type == "cpu" else 8 * self.settings.batch
        if self.device.type in self.arrange_on:
            self.network.arrange(best_for(self.device, self.half, self.settings.compiles))
        if self.half:
            cast_once(self.network)
        resting = torch.device("cpu") if self._offload else self.device
        for part in (self.network, self.codec, self.conditioner):
            part.to(resting)
        if self.settings.records(self.device):
            self._flow = Recorded(self.network.flow)
        finish(self.device)

    @property
    def _offload(self) -> bool:
        return self.settings.offload == "yes"

    @contextmanager
    def _on_device(self, part: FlowNetwork | Codec | Conditioner) -> Iterator[None]:
        """Within it this part is on the device, and no other."""
        try:
            part.to(self.device)
            yield
            finish(self.device)
        finally:
            part.to(torch.device("cpu"))

    @property
    def _at_once(self) -> int:
        return 1 if self.device.type == "cpu" else max(1, self.settings.batch // len(self.windows))

    @property
    def _alone(self) -> bool:
        """One thing after the other, one sample at a time: only then are seconds those of a sample."""
        return self.device.type == "cpu" or self.settings.batch == 1

    def setup(self, clips: ClipSet, seconds: float, seed: int) -> None:
        """Fix the duration, in seconds; UsageError when no clip has any condition that is to be used."""
        del seed
        if not (math.isfinite(seconds) and seconds > 0):
            raise UsageError(f"{self.name}: a clip must last longer than 0 s, got {seconds:g} s")
        check_clips(self.name, clips, self.conditions, self.settings)
        self._plan(seconds)

    def _plan(self, seconds: float) -> None:
        self.seconds = seconds
        stretch = min(seconds, self.settings.window)
        frames = self.codec.latent_len(stretch)
        total = self.codec.latent_len(seconds)
        self.windows = windows.plan(seconds, self.settings.window, OVERLAP, frames, total)
        self._set_lengths(frames, *self.conditioner.lengths(stretch))

    def _set_lengths(self, *tokens: int) -> None:
        self.network.set_lengths(*tokens)
        if isinstance(self._flow, Recorded):
            self._flow.forget()

    # ------------------------------------------------------------------ from clips to samples

    @torch.no_grad()
    def generate(self, clips: Sequence[Clip], seed: int, samples: int = 1) -> Iterator[Generated]:
        """Samples in order. On a GPU the next clips are read, and finished latents decoded, in threads."""
        at_once = self._at_once
        if self._offload:
            yield from self._in_turn(clips, seed, samples)
            return
        if self._alone:
            for inputs in map(self._read, clips):
                for k in range(samples):
                    yield from self._decode(*self._latents([(inputs, k)], seed))
            return
        jobs: list[tuple[Inputs, int]] = []
        waiting: deque[Future[list[Generated]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="codec") as decoder:
            for inputs in prefetch_map(self._read, clips, READERS, 2 * at_once):
                jobs += [(inputs, k) for k in range(samples)]
                while len(jobs) >= at_once:
                    waiting.append(decoder.submit(self._decode, *self._latents(jobs[:at_once], seed)))
                    jobs = jobs[at_once:]
                while len(waiting) > 1:
                    yield from waiting.popleft().result()
            if jobs:
                waiting.append(decoder.submit(self._decode, *self._latents(jobs, seed)))
            while waiting:
                yield from waiting.popleft().result()

    def _in_turn(self, clips: Sequence[Clip], seed: int, samples: int) -> Iterator[Generated]:
        """With ``offload``: all conditions, then all latents, then all sounds, each with its networks alone."""
        with self._on_device(self.conditioner):
            jobs = [(inputs, k) for inputs in map(self._read, clips) for k in range(samples)]
            if self.settings.guided:
                self._negative_text()
        groups = [jobs[start : start + self._at_once] for start in range(0, len(jobs), self._at_once)]
        with self._on_device(self.network):
            made = [self._latents(group, seed) for group in groups]
            made = [(group, None if x is None else self.network.unnormalize(x), s) for group, x, s in made]
        with self._on_device(self.codec):
            for group, latent, seconds in made:
                yield from self._sounds(group, latent, seconds)

    def _read(self, clip: Clip) -> Inputs:
        """Decode one clip and compute its conditions, window by window."""
        reader = InputReader(self.conditioner, self.conditions, self.windows, self.seconds, self.store, self.device)
        return reader.read(clip)

    def _latents(
        self, jobs: Sequence[tuple[Inputs, int]], seed: int
    ) -> tuple[Sequence[tuple[Inputs, int]], Any, float]:
        """Normalised latents ``(b, total, C)`` of the jobs that have conditions."""
        started = time.perf_counter()
        usable = [job for job in jobs if job[0].problem is None]
        if not usable:
            return jobs, None, 0.0
        # A compiled network is compiled for one batch size: a smaller batch is filled up.
        filled = self._at_once - len(usable) if self.settings.compiles else 0
        rows = usable + usable[-1:] * filled
        shape = (self.windows.total, self.codec.latent_dim)
        noise = torch.stack([matching.noise(shape, seed, inputs.clip.id, k) for inputs, k in rows]).to(self.device)
        full = nullcontext() if self.half else single_precision()
        with full, torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            condition = self._condition([inputs for inputs, _ in rows])
            latent = self._solve(noise, condition)[: len(usable)]
        finish(self.device)
        return jobs, latent, (time.perf_counter() - started) / len(usable)

    def _condition(self, rows: Sequence[Inputs]) -> Preprocessed:
        """Conditions of all windows of all rows, joined with the empty ones when guidance needs them."""
        network, count = self.network, len(self.windows)
        config = network.config

        def stacked(values: Sequence[Tensor | None], empty: Tensor, length: int) -> Tensor:
            blank = empty.expand(count, length, -1)
            return torch.cat([blank if v is None else v.to(self.device, torch.float32) for v in values])

        real = network.preprocess(
            stacked([r.visual for r in rows], network.empty_clip_feat, config.clip_len),
            stacked([r.sync for r in rows], network.empty_sync_feat, config.sync_len),
            stacked([r.text for r in rows], network.empty_string_feat, config.text_len),
        )
        if not self.settings.guided:
            return real
        negative = self._negative_text()
        if any(r.negative is not None for r in rows):
            common = network.empty_string_feat if negative is None else negative[0]
            negative = stacked([r.negative for r in rows], common, config.text_len)
        return real.join(network.empty(len(rows) * count, negative))

    def _negative_text(self) -> Tensor | None:
        """Tokens of the negative text of all clips, encoded once; None for the empty string's own."""
        if self.settings.negative and self._negative is None:
            self._negative = self.conditioner.text(self.settings.negative)[None].to(self.device)
        return self._negative

    def _solve(self, noise: Tensor, condition: Preprocessed) -> Tensor:
        """From noise to a normalised latent."""
        return solve(self._flow, self.network.ready, noise, condition, self.settings, self.windows)

    @torch.no_grad()
    def _decode(self, jobs: Sequence[tuple[Inputs, int]], latent: Tensor | None, seconds: float) -> list[Generated]:
        """Normalised latents to audio."""
        with own_stream(self.device):
            raw = None if latent is None else self.network.unnormalize(latent)
        return self._sounds(jobs, raw, seconds)

    @torch.no_grad()
    def _sounds(self, jobs: Sequence[tuple[Inputs, int]], latent: Tensor | None, seconds: float) -> list[Generated]:
        """Latents to audio, trimmed to the asked length; jobs without conditions keep their reason."""
        started = time.perf_counter()
        usable = sum(inputs.problem is None for inputs, _ in jobs)
        length = round(self.seconds * self.codec.sample_rate)
        with single_precision(), own_stream(self.device):
            waves = iter(() if latent is None else self.codec.decode(latent).float().cpu())
        decoding = (time.perf_counter() - started) / max(usable, 1)
        found = []
        for inputs, k in jobs:
            if inputs.problem is not None:
                found.append(Generated(inputs.clip.id, k, reason=inputs.problem.reason, detail=str(inputs.problem)))
                continue
            wave = next(waves)[:length]
            self._warm += 1
            timings = {}
            if self._warm > WARM_UP and self._alone and inputs.seconds is not None:
                timings = {"features": inputs.seconds, "generation": seconds, "decoding": decoding}
            if len(wave) < length:
                detail = f"the codec gave {len(wave)} samples, {length} are needed"
                found.append(Generated(inputs.clip.id, k, reason=Reason.GENERATOR_FAILED, detail=detail))
            else:
                found.append(Generated(inputs.clip.id, k, wave[None], self.sample_rate, timings=timings))
        return found
