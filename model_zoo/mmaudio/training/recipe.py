"""A training config: YAML file -> ``FlowRecipe``, every key checked.

A file may name another one as its ``base``; its own keys are laid over it, key by key in nested groups (lists are
replaced whole). ``base`` is a path beside the file, or the name of a config of this package.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from av_bench.contracts import UsageError, unknown_name
from av_bench.schema import build, load_yaml, merge, parse_yaml
from model_zoo.mmaudio.flow.lora import Lora
from model_zoo.mmaudio.training.ema import LEAST_SNAPSHOTS, WORST, gamma_of, kept_at, synthesis_error
from model_zoo.mmaudio.training.mix import Dropout, Source
from model_zoo.mmaudio.training.tuning import Distill, RateGroup, without_defaults

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Data:
    """Sources of the mix.

    ``exclude``: text file with a name per line: recordings, or crops of them, that are left out of training.
    ``statistics``: number of the source whose latents define the normalisation; by default the first source that has
    video, as in the published code. ``normalise`` false: latents are trained on as they are. ``verify`` compares all
    checksums at start.
    """

    train: tuple[Source, ...]
    validation: tuple[Source, ...] = ()
    statistics: int | None = None
    normalise: bool = True
    exclude: str | None = None
    threads: int = 1
    verify: bool = True


@dataclass(frozen=True)
class Optimiser:
    """AdamW with a single parameter group: weight decay acts on biases and norms too (published code)."""

    rate: float = 1e-4
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    clip: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a factor ``gamma`` at each milestone.

    ``counting`` says from where milestones count: ``paper`` from the first step (80 % and 90 % of training, appendix
    H), ``code`` from the end of the warm-up, as the published code does in effect (1,000 steps later).
    """

    warmup: int = 1000
    milestones: tuple[int, ...] = (240_000, 270_000)
    gamma: float = 0.1
    counting: Literal["paper", "code"] = "paper"

    def factor(self, step: int) -> float:
        """Factor on the base rate at ``step`` (0 is the first)."""
        start = self.warmup if self.counting == "code" else 0
        passed = sum(step >= start + milestone for milestone in self.milestones)
        return min(1.0, (step + 1) / (self.warmup + 1)) * self.gamma**passed


@dataclass(frozen=True)
class Ema:
    """Post-hoc EMA (paper, appendix H: relative width 0.05): widths that are tracked, snapshots kept of each.

    ``final``: widths for which weights are written at the end, also others than those tracked.
    """

    sigma_rel: tuple[float, ...] = (0.05, 0.1)
    snapshots: int = 24
    final: tuple[float, ...] = (0.05,)


@dataclass(frozen=True)
class Every:
    """Steps between log lines, validation, metrics, snapshots of the averages, and checkpoints; 0: never."""

    log: int = 200
    validate: int = 5000
    metrics: int = 20_000
    snapshot: int = 5000
    checkpoint: int = 10_000


@dataclass(frozen=True)
class RunSettings:
    """How the work is done; nothing here changes what is learned beyond rounding.

    ``precision`` bf16: autocast with float32 weights. ``batch`` is cut over processes, each part into ``accumulate``
    pieces. ``checkpointing`` recomputes each block's activations in the backward pass. ``device``: auto, cpu, cuda, or
    one GPU of this machine as cuda:N; processes of a launcher each take the GPU of their own local rank.
    ``background``: checkpoints are written and hashed in a thread while training continues; they are copied first.
    ``deterministic``: operations whose sums have a fixed order, so that a GPU gives the same bits again (slower).
    """

    precision: Literal["bf16", "fp32"] = "bf16"
    accumulate: int = 1
    checkpointing: bool = False
    deterministic: bool = False
    compile: bool = True
    parallel: Literal["ddp", "fsdp"] = "ddp"
    device: str = "auto"
    keep: int = 2  # complete checkpoints kept
    background: bool = False
    tensorboard: bool = True  # when the package is installed
    wandb: str | None = None  # project name; nothing is sent anywhere unless it is set

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"run: device: {self.device!r} is not one of auto, cpu, cuda, cuda:N")


@dataclass(frozen=True)
class FlowRecipe:
    """Everything that decides a training run. ``network``: a variant name and, or, fields of NetworkConfig.

    ``empty_text``: safetensors file with the features of the empty text as ``empty_string_feat``; without it they come
    from the training features. ``learn_empty_text``: they are trained on from there (Table A3, all learnable).

    Fine-tuning: ``init`` names the weights to start from (``mmaudio-nano``, a variant, or a file); latent statistics
    and empty text are then theirs. ``frozen``: names of parameters that are not trained, with ``*`` for any text.
    ``lora``: adapters, which are then all that is trained. ``rates``: factors on the rate of some parameters.
    ``distill``: a teacher to learn few large steps from, in place of the features' own sounds.
    """

    name: str
    network: Mapping[str, Any]
    data: Data
    batch: int = 512
    steps: int = 300_000
    seed: int = 14159265
    dropout: Dropout = field(default_factory=Dropout)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    ema: Ema = field(default_factory=Ema)
    every: Every = field(default_factory=Every)
    run: RunSettings = field(default_factory=RunSettings)
    empty_text: str | None = None
    learn_empty_text: bool = False
    init: str | None = None
    frozen: tuple[str, ...] = ()
    lora: Lora | None = None
    rates: tuple[RateGroup, ...] = ()
    distill: Distill | None = None

    def __post_init__(self) -> None:
        _check(self)

    def identity(self) -> str:
        """Canonical JSON of what must not change between a checkpoint and the run that resumes from it."""
        content = without_defaults(asdict(self) | {"ema": list(self.ema.sigma_rel)})
        for name in ("run", "every", "name", "steps", "empty_text", "init"):  # the digest of init is compared instead
            del content[name]
        if self.lora is not None:
            del content["lora"]["merged"]
        if self.distill is not None:
            del content["distill"]["teacher"]  # likewise
        for name in ("threads", "verify", "validation", "exclude"):  # a checkpoint holds what the list leaves
            del content["data"][name]
        for source in content["data"]["train"]:
            del source["path"]  # folders may move; the number of samples is compared instead
        return json.dumps(content, sort_keys=True)


def _check(recipe: FlowRecipe) -> None:
    """UsageError naming every value that is out of range, or an average that cannot be made from the snapshots."""
    where, data, every, run = f"config {recipe.name}", recipe.data, recipe.every, recipe.run
    if min(recipe.batch, recipe.steps, run.accumulate, run.keep) < 1:
        raise UsageError(f"{where}: batch, steps, accumulate and keep must be positive")
    if not 0 <= recipe.seed < 2**63:
        raise UsageError(f"{where}: seed must lie in [0, 2^63), got {recipe.seed}")
    if recipe.lora is not None and recipe.init is None:
        raise UsageError(f"{where}: lora needs init: adapters are trained on a network that is there")
    if recipe.distill is not None and recipe.init is None:
        raise UsageError(f"{where}: distill needs init: a student starts from the teacher's weights, or from others")
    if not data.train:
        raise UsageError(f"{where}: data.train is empty; name at least one feature folder")
    wrong = [*_numbers(recipe)]
    counts = {"data.threads": data.threads, "schedule.warmup": recipe.schedule.warmup}
    counts |= {f"every.{name}": value for name, value in vars(every).items()}
    counts |= {f"schedule.milestones[{n}]": value for n, value in enumerate(recipe.schedule.milestones)}
    wrong += [f"{name} must not be negative, got {value}" for name, value in counts.items() if value < 0]
    if wrong:
        raise UsageError(f"{where}: {'; '.join(wrong)}")
    _check_averages(recipe.ema, every.snapshot, recipe.steps, where)


def _numbers(recipe: FlowRecipe) -> Iterator[str]:
    """Numbers that are not finite or not in their range."""
    optimiser, dropout = recipe.optimiser, recipe.dropout
    for name, value in (("video", dropout.video), ("text", dropout.text)):
        if not 0 <= value <= 1:
            yield f"dropout.{name} is a chance in [0, 1], got {value}"
    for number, value in enumerate(optimiser.betas):
        if not 0 <= value < 1:
            yield f"optimiser.betas[{number}] must lie in [0, 1), got {value}"
    free = {"optimiser.rate": optimiser.rate, "optimiser.weight_decay": optimiser.weight_decay}
    for name, value in (free | {"optimiser.eps": optimiser.eps, "schedule.gamma": recipe.schedule.gamma}).items():
        if not 0 <= value < math.inf:
            yield f"{name} must be a number that is not negative, got {value}"
    if not 0 < optimiser.clip < math.inf:
        yield f"optimiser.clip must be a positive number, got {optimiser.clip}"


def _check_averages(ema: Ema, every: int, steps: int, where: str) -> None:
    """All widths exist, and those that are not tracked can be made from the snapshots there will be at the end."""
    if not ema.sigma_rel or len(set(ema.sigma_rel)) < len(ema.sigma_rel):
        raise UsageError(f"{where}: ema.sigma_rel must name one width or more, each once, got {list(ema.sigma_rel)}")
    for name, widths in (("sigma_rel", ema.sigma_rel), ("final", ema.final)):
        for width in widths:
            if not 0 < width < 12**-0.5:
                raise UsageError(f"{where}: ema.{name}: {width} must lie between 0 and {12**-0.5:.4f}")
    if ema.snapshots < LEAST_SNAPSHOTS:
        raise UsageError(f"{where}: ema.snapshots must be at least {LEAST_SNAPSHOTS}, got {ema.snapshots}")
    untracked = sorted(set(ema.final) - set(ema.sigma_rel))
    if not untracked:
        return
    if len(ema.sigma_rel) < 2:
        raise UsageError(f"{where}: ema.final {untracked} needs two tracked widths in ema.sigma_rel")
    kept = snapshots_at_end(steps, every, ema.snapshots)
    gammas = [gamma_of(width) for width in ema.sigma_rel for _ in kept]
    for width in untracked:
        error = synthesis_error(kept * len(ema.sigma_rel), gammas, steps, gamma_of(width))
        if error > WORST:
            raise UsageError(
                f"{where}: ema.final: the average of width {width} would be off by {error:.0%} when made from the "
                f"{len(kept)} snapshots per width there will be; add it to ema.sigma_rel, or take more snapshots "
                f"(every.snapshot is {every}, ema.snapshots {ema.snapshots})"
            )


def snapshots_at_end(steps: int, every: int, limit: int) -> list[int]:
    """Steps of the averages of one width that the synthesis has: the snapshots, and the average of the last step."""
    return sorted({*kept_at(steps, every, limit), steps})


def read_recipe(path: Path | str, changes: Sequence[str] = ()) -> FlowRecipe:
    """Read a config file, or a config of this package by name, and apply ``key.key=value`` changes (YAML values)."""
    content = with_changes(_read(_find(path, Path.cwd()).resolve(), ()), changes)
    return build(FlowRecipe, content, str(path))


def with_changes(content: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A document with ``key.key=value`` changes laid over it, in order; the values are YAML."""
    found = dict(content)
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or not key:
            raise UsageError(f"--change {change}: write KEY=VALUE, e.g. --change run.compile=false")
        found = merge(found, _nested(key.split("."), parse_yaml(value, f"--change {change}")))
    return found


def _nested(keys: Sequence[str], value: object) -> dict[str, object]:
    return {keys[0]: _nested(keys[1:], value) if len(keys) > 1 else value}


def _find(name: Path | str, folder: Path) -> Path:
    beside = folder / name
    if beside.is_file():
        return beside
    known = {p.relative_to(CONFIGS).with_suffix("").as_posix(): p for p in sorted(CONFIGS.rglob("*.yaml"))}
    if str(name) in known:
        return known[str(name)]
    raise UsageError(f"no config file {name}, and " + unknown_name("config", str(name), sorted(known)))


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise UsageError(f"config {path}: its bases lead back to itself")
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UsageError(f"config {path}: expected keys and values at the top")
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise UsageError(f"config {path}: base: expected the name of a config, got {base!r}")
    return merge(_read(_find(base, path.parent).resolve(), (*seen, path)), content)
