"""How MMAudio samples: the options of a model spec (``mmaudio-l:steps=10,cfg=3``), and what makes it fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from av_bench.contracts import UsageError
from av_bench.runtime.devices import multiplies_bf16
from model_zoo.mmaudio.flow.few_step import FewStep
from model_zoo.spec_values import Number, written

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Conditions = Literal["both", "video", "text", "none"]
Solver = Literal["euler", "heun", "midpoint", "multistep", "adaptive"]
Compile = Literal["auto", "no", "yes", "graphs"]
Precision = Literal["bf16", "fp32", "auto"]
Frames = Literal["filter", "demo"]
Offload = Literal["yes", "no"]
STEPS, GUIDANCE = 25, 4.5
OVERLAP = 2.0  # seconds that windows of a long clip share
SHORTEST_WINDOW = OVERLAP + 1
OPTIONS: Mapping[str, str] = {
    "steps": f"steps of the solver (default {STEPS})",
    "cfg": f"strength of guidance; at 1 and below the unconditional pass is left out (default {GUIDANCE})",
    "guide_from": "time from 0 (noise) to 1 (sound) before which there is no guidance and no second pass (default 0)",
    "negative": "text to steer away from, used by the unconditional pass",
    "solver": "euler; multistep; heun or midpoint, which evaluate the network twice a step; adaptive",
    "conditions": "both, video, text or none",
    "window": "longest stretch generated in one piece, in seconds",
    "batch": "windows that run together on a GPU (default 8)",
    "compile": "auto (with batch=1 a GPU replays a step as one CUDA graph), no, yes, or graphs (compiled CUDA graphs)",
    "precision": "fp32 (default on a CPU), bf16 (default on a GPU), or auto: bf16 where the processor multiplies it",
    "frames": "filter (ffmpeg's fps filter, as in training), or demo: those that the published demo picks",
    "offload": "no, or yes: conditions, flow network and codec are on the device one after the other",
    "weights": "trained weights in place of the published ones",
}


@dataclass(frozen=True)
class Settings:
    """How to sample. ``cfg`` of 1 and below leaves the unconditional pass out, everywhere; ``guide_from`` leaves it out
    at times (0 is noise, 1 is sound) before that one (Kynkäänniemi et al. 2024, arXiv 2404.07724).

    ``window`` is the longest stretch generated in one piece, in seconds. ``compile``: "auto" records a step as a CUDA
    graph where a GPU makes one sample at a time, which saves the launches that it would wait for; "yes" compiles the
    flow network, "graphs" also replays the compiled one as CUDA graphs. ``precision`` is that of the flow network's
    products; None is fp32 on a CPU and bf16 on a GPU.
    """

    steps: int = STEPS
    cfg: float = GUIDANCE
    guide_from: float = 0.0
    negative: str = ""
    solver: Solver = "euler"
    conditions: Conditions = "both"
    window: float = 8.0
    batch: int = 8
    compile: Compile = "auto"
    precision: Precision | None = None
    frames: Frames = "filter"
    offload: Offload = "no"
    given: frozenset[str] = frozenset()  # names of options that were chosen, not left at their default

    def __post_init__(self) -> None:
        if self.compile not in get_args(Compile):
            raise UsageError(f"compile must be one of {', '.join(get_args(Compile))}, got {self.compile!r}")
        if self.precision not in (None, *get_args(Precision)):
            raise UsageError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        for name, kind in (("frames", Frames), ("offload", Offload)):
            if vars(self)[name] not in get_args(kind):
                raise UsageError(f"{name} must be one of {', '.join(get_args(kind))}, got {vars(self)[name]!r}")
        if self.solver not in get_args(Solver):
            raise UsageError(f"solver must be one of {', '.join(get_args(Solver))}, got {self.solver!r}")
        if self.conditions not in get_args(Conditions):
            raise UsageError(f"conditions must be one of {', '.join(get_args(Conditions))}, got {self.conditions!r}")
        if self.steps < 1 or self.batch < 1:
            raise UsageError(f"steps and batch must be at least 1, got {self.steps} and {self.batch}")
        if not (math.isfinite(self.window) and self.window >= SHORTEST_WINDOW):
            raise UsageError(f"window must be {SHORTEST_WINDOW:g} s or longer, got {self.window:g} s")
        if not 0 <= self.guide_from < 1:
            raise UsageError(f"guide_from must be at least 0 and below 1, got {self.guide_from:g}")
        if "guide_from" in self.given and not self.guided:
            raise UsageError(f"guide_from says when guidance begins, and with cfg={self.cfg:g} there is none")
        if self.negative and not self.guided:
            raise UsageError(f"negative text is used by the unconditional pass, which cfg={self.cfg:g} leaves out")
        if not math.isfinite(self.cfg):
            raise UsageError(f"cfg must be a number, got {self.cfg}")

    def half(self, device: torch.device) -> bool:
        """Whether the flow network's products are made in bf16 on a device."""
        if self.precision == "auto":
            return device.type == "cuda" or multiplies_bf16()
        return self.precision == "bf16" or (self.precision is None and device.type == "cuda")

    def made_for(self, few: FewStep | None, name: str) -> Settings:
        """These settings for weights that are made for ``few`` steps: their number of steps, and no guidance.

        UsageError for chosen options that say otherwise.
        """
        if few is None:
            return self
        what = f"{name}: these weights are made for {few.steps} Euler steps and hold guidance {few.guidance:g} already"
        wrong = [
            f"{key}={vars(self)[key]}"
            for key, wanted in (
                ("steps", few.steps),
                ("cfg", 1.0),
                ("solver", "euler"),
                ("negative", ""),
                ("guide_from", 0.0),
            )
            if key in self.given and vars(self)[key] != wanted
        ]
        if wrong:
            raise UsageError(f"{what}; leave {', '.join(wrong)} out")
        return replace(self, steps=few.steps, solver="euler", cfg=1.0)

    @property
    def compiles(self) -> bool:
        """Whether a compiler makes the flow network's code, for one batch size."""
        return self.compile in ("yes", "graphs")

    def records(self, device: torch.device) -> bool:
        """Whether a step is recorded as a CUDA graph: one sample at a time on a GPU where the network stays."""
        return self.compile == "auto" and device.type == "cuda" and self.batch == 1 and self.offload == "no"

    @property
    def guided(self) -> bool:
        """Whether the unconditional pass has any weight: at ``cfg`` 1 it cancels out."""
        return self.cfg > 1


def read_settings(name: str, options: Mapping[str, object], fixed: tuple[str, ...] = (), **defaults: Any) -> Settings:
    """Options of a model spec (``mmaudio-l:steps=10,cfg=3``) as settings; those in ``fixed`` cannot be set.

    UsageError names an unknown option, and a value that is not of its type.
    """
    known = [f.name for f in fields(Settings) if f.name not in (*fixed, "given")]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise UsageError(f"{name}: unknown option {unknown[0]!r}; options are {', '.join(known)}, weights")
    if "steps" in options and options.get("solver") == "adaptive":
        raise UsageError(f"{name}: the adaptive solver chooses its own steps; leave steps out, or the solver")
    chosen: dict[str, Any] = {key: _typed(name, key, value) for key, value in options.items()}
    return Settings(**{**defaults, **chosen}, given=frozenset(chosen))


def _typed(name: str, key: str, value: object) -> object:
    """An option as its own type. Specs give what looks like a number as one that knows its ``text``."""
    if key in ("steps", "batch") and isinstance(value, int | float) and float(value).is_integer():
        return int(value)
    if key in ("cfg", "guide_from", "window") and isinstance(value, int | float):
        return float(value)
    if key == "compile" and value in get_args(Compile):
        return value
    if key in ("negative", "solver", "conditions", "precision", "frames", "offload"):
        return written(value)
    numbers = dict.fromkeys(("cfg", "guide_from", "window"), "a number")
    wanted = {"compile": "auto, no, yes or graphs", **numbers}.get(key, "a whole number")
    shown = value.text if isinstance(value, Number) else value
    raise UsageError(f"{name}: {key} must be {wanted}, got {shown!r}")


def compiled(function: Callable[..., Tensor], how: Compile) -> Callable[..., Tensor]:
    """A function as it is, compiled, or compiled and replayed as CUDA graphs (on a CPU that is compiled only)."""
    if how in ("auto", "no"):
        return function
    import torch

    if how == "yes":
        return torch.compile(function)
    recorded = torch.compile(function, mode="reduce-overhead")

    def replayed(*inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return recorded(*inputs).clone()  # the next replay writes into the same memory, and solvers keep velocities

    return replayed
