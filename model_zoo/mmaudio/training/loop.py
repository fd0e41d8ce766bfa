"""The training loop of the flow network: feature folders and a recipe in, weights out.

A step is a function of (weights, seed, step number): batches and noise come from ``mix``, the learning rate from the
schedule, nothing else is random. A run that is killed and started again therefore ends with the same weights, bit for
bit on one machine; with another number of processes it ends with the same weights up to the rounding of sums.
"""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from av_bench.contracts import AvBenchError, MissingRequirement, UsageError
from av_bench.runtime.files import lock, write_atomically
from model_zoo.mmaudio.flow.few_step import FewStep
from model_zoo.mmaudio.flow.network import FlowNetwork
from model_zoo.mmaudio.training import checkpoints, setup
from model_zoo.mmaudio.training.averages import Averages
from model_zoo.mmaudio.training.distill import Distillation
from model_zoo.mmaudio.training.distributed import (
    Cluster,
    as_sharded_like,
    check_batch,
    cluster,
    full_tensor,
    gather_full,
    wrap_parallel,
)
from model_zoo.mmaudio.training.journal import Journal, read_log
from model_zoo.mmaudio.training.metrics import Evaluation
from model_zoo.mmaudio.training.mix import Batch, Loader
from model_zoo.mmaudio.training.objective import Matching, Normaliser, Objective, adamw, gradients, update
from model_zoo.mmaudio.training.recipe import FlowRecipe
from model_zoo.mmaudio.training.result import Result, whole
from model_zoo.mmaudio.training.validation import validate

__all__ = ["Evaluation", "Trainer", "TrainingFailed", "train"]


class TrainingFailed(AvBenchError):
    """The loss, or the norm of its gradient, is no number any more."""

    exit_code = 1


def train(
    recipe: FlowRecipe,
    out: Path | str,
    evaluation: Evaluation | None = None,
    quiet: bool = False,
    excluded: frozenset[str] = frozenset(),
) -> Path:
    """Train, or resume the training in ``out``; returns the folder of the final weights.

    ``out``: recipe.json, log.jsonl, checkpoints/, snapshots/, and at the end weights/. ``excluded``: recordings to
    leave out, besides those of the recipe's own list; all their names are written to excluded.txt.
    """
    out = Path(out)
    with cluster(recipe.run) as processes, lock(out / ".lock") if processes.first else nullcontext(True) as mine:
        if not mine:
            raise UsageError(f"{out} is being written by another training run; wait for it, or choose another --out")
        check_batch(recipe, processes.world)
        if processes.first:
            checkpoints.sweep(out / "checkpoints", out / "snapshots", out / "weights")
        trainer = Trainer(recipe, out, processes, evaluation, quiet, excluded)
        try:
            trainer.run()
        finally:
            trainer.close()
        return trainer.weights


class Trainer:
    """State of one training run in one process."""

    def __init__(
        self,
        recipe: FlowRecipe,
        out: Path,
        processes: Cluster,
        evaluation: Evaluation | None = None,
        quiet: bool = False,
        excluded: frozenset[str] = frozenset(),
    ) -> None:
        self.recipe, self.out, self.cluster, self.evaluation = recipe, out, processes, evaluation
        self.quiet = quiet
        self.weights = out / "weights"
        self.excluded = excluded | setup.excluded_names(recipe)
        self.mix, self.validation_mix = setup.mixes(recipe, processes, self.excluded)
        self.data, self.kept = setup.data_digest(recipe), setup.kept_digest(self.mix, self.excluded)
        start = setup.start_of(recipe)
        self.start_digest = None if start is None else start.digest
        self.network = setup.network(recipe, self.mix, start).to(processes.device)
        self.teacher = Distillation.of(recipe, self.network)
        self.module = wrap_parallel(self.network, recipe.run, processes)
        o = recipe.optimiser
        self.optimiser = adamw(self.network, o.rate, o.weight_decay, o.betas, o.eps, recipe.rates)
        self.averages = Averages(self.network, recipe.ema, recipe.every.snapshot, out / "snapshots", processes)
        self.step = 0
        self.window = torch.zeros(3, dtype=torch.float64, device=processes.device)  # sums since the last log line
        self._resume()
        self.normalise = self._normaliser()  # the checkpoint's statistics, not those of today's features
        self.objective: Objective = self.teacher or Matching(self.normalise)
        pin = processes.device.type == "cuda"
        self.writer = checkpoints.Writer(recipe.run.background)
        self.loader = Loader(self._batch, recipe.data.threads, pin)
        self.journal = self._journal(quiet) if processes.first else None
        self._since = (time.perf_counter(), self.step)

    def run(self) -> None:
        """Steps until the recipe's last one, then the final weights."""
        every = self.recipe.every
        if self._metrics_are_due():
            self._metrics()
        while self.step < self.recipe.steps:
            self.writer.check()
            self.train_step()
            if _due(self.step, every.log) or self.step == self.recipe.steps:
                self._log()
            if _due(self.step, every.snapshot, every.validate, every.metrics):
                self._check_finite(self.cluster.total(self.window))
            if _due(self.step, every.snapshot):
                self.averages.snapshot(self.step)
                self.cluster.wait()  # others would run into the next sum of gradients, whose patience is shorter
            if self.validation_mix is not None and _due(self.step, every.validate):
                self._validate()
            if _due(self.step, every.checkpoint):
                self.save()  # before metrics: whatever becomes of them, these steps are kept
            if self.evaluation is not None and _due(self.step, every.metrics):
                self._metrics()
        if not _due(self.step, every.checkpoint):
            self.save()
        self.writer.wait()
        self._finish()

    def train_step(self) -> torch.Tensor:
        """One optimiser step; returns this process's losses (B / processes,)."""
        run, optimiser = self.recipe.run, self.recipe.optimiser
        batch = self.loader(self.step).to(self.cluster.device)
        found = gradients(self.module, batch, self.objective, run.precision, run.accumulate)
        norm = update(self.optimiser, optimiser.rate * self.recipe.schedule.factor(self.step), optimiser.clip)
        self.step += 1
        self.averages.update()
        self.window[0] += found.sum()
        self.window[1] += len(found)
        self.window[2] += norm / self.cluster.world  # the same in every process
        return found

    def save(self) -> None:
        """A checkpoint of everything that decides the steps to come."""
        window = self.cluster.total(self.window)
        self._check_finite(window)
        values = [(f"weights/{k}", v) for k, v in self._stored().items()]
        for name, parameter in self._trainable():
            state = self.optimiser.state[parameter]
            values += [(f"{key}/{name}", state[key]) for key in ("exp_avg", "exp_avg_sq")]
        tensors = gather_full(values, self.cluster.first) | self.averages.tensors()
        if self.cluster.first:
            state = {"recipe": self.recipe.identity(), "window": window.tolist(), **self._content()}
            self.writer.save(self.out / "checkpoints", self.step, tensors, state, self.recipe.run.keep)
        self.cluster.wait()

    def close(self) -> None:
        """Stop threads and close the log."""
        self.loader.close()
        self.writer.close()
        if self.journal is not None:
            self.journal.close()

    def whole_network(self) -> FlowNetwork | None:
        """A network of its own with the current weights in the first process, None in the others."""
        state = gather_full(self.network.state_dict().items(), self.cluster.first)
        if not self.cluster.first:
            return None
        network = FlowNetwork(self.network.config)
        network.load_state_dict(whole(state, self.recipe.lora))
        network.few_step = self._few_step()
        return network.to(self.cluster.device).eval()

    def _stored(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of the network: all of it, or what is trained where the rest is ``init``'s."""
        state, trained = self.network.state_dict(), {name for name, _ in self._trainable()}
        return {k: v for k, v in state.items() if k in trained or self.recipe.init is None}

    def _few_step(self) -> FewStep | None:
        return None if self.teacher is None else self.teacher.few_step

    def _batch(self, step: int) -> Batch:
        return self.mix.batch(step, self.recipe.batch, self.recipe.dropout, self.cluster.rank, self.cluster.world)

    def _trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    def _journal(self, quiet: bool) -> Journal:
        self.out.mkdir(parents=True, exist_ok=True)
        content = {"recipe": asdict(self.recipe), "network": asdict(self.network.config), "samples": len(self.mix)}
        content["excluded"] = len(self.excluded)
        if self.excluded:  # now that no check refuses the run any more: the list of the one before is replaced
            names = "".join(f"{name}\n" for name in sorted(self.excluded))
            write_atomically(self.out / "excluded.txt", names.encode())
        write_atomically(self.out / "recipe.json", (json.dumps(content, indent=1, default=dict) + "\n").encode())
        run = self.recipe.run
        return Journal(self.out, self.step, tensorboard=run.tensorboard, wandb=run.wandb, quiet=quiet)

    def _resume(self) -> None:
        """Take up the newest checkpoint in ``out``; one of another recipe or of other features is refused."""
        found = checkpoints.load_agreed(self.out / "checkpoints", self.cluster)
        if found is None:
            return
        setup.check_same(self.out, found, self.recipe, self._content())
        own = {k: as_sharded_like(found.tensors[f"weights/{k}"], v) for k, v in self._stored().items()}
        self.network.load_state_dict(own, strict=self.recipe.init is None)
        for name, parameter in self._trainable():
            moments = {
                k: as_sharded_like(found.tensors[f"{k}/{name}"], parameter.detach()) for k in ("exp_avg", "exp_avg_sq")
            }
            count = torch.tensor(float(found.step), device=self.cluster.device)
            self.optimiser.state[parameter] = {"step": count, **moments}
        self.averages.load(found.tensors, found.step)
        self.step = found.step
        if self.cluster.first and not self.quiet:
            print(f"{self.out}: resuming from step {self.step} of {self.recipe.steps}", file=sys.stderr, flush=True)
        if self.cluster.first:  # sums are totals over all processes
            self.window += torch.tensor(found.state["window"], dtype=torch.float64, device=self.cluster.device)

    def _content(self) -> dict[str, Any]:
        """What tells the training samples from others, wherever they lie."""
        found = {"samples": len(self.mix), "data": self.data, "kept": self.kept, "init": self.start_digest}
        return found if self.teacher is None else {**found, "teacher": self.teacher.digest}

    def _normaliser(self) -> Normaliser:
        mean, std = (full_tensor(v.detach()).clone() for v in (self.network.latent_mean, self.network.latent_std))
        return Normaliser(mean, std)

    def _log(self) -> None:
        total = self.cluster.total(self.window)
        self.window = torch.zeros_like(self.window)
        self._check_finite(total)
        window = total.tolist()
        now = time.perf_counter()
        if self.journal is not None:
            steps = window[1] / self.recipe.batch
            speed = (self.step - self._since[1]) * self.recipe.batch / (now - self._since[0])
            rate = self.recipe.optimiser.rate * self.recipe.schedule.factor(self.step - 1)
            values = {"loss": window[0] / window[1], "gradient_norm": window[2] / steps, "rate": rate}
            gpus = self.cluster.world if self.cluster.device.type == "cuda" else 0
            self.journal.write(self.step, "train", {**values, "samples_per_second": speed, "gpus": gpus})
        self._since = (now, self.step)

    def _check_finite(self, window: torch.Tensor) -> None:
        if not bool(window.isfinite().all()):
            what = "norm of the gradient" if math.isfinite(float(window[0])) else "loss"
            raise TrainingFailed(
                f"{self.out}: the {what} is not finite at or before step {self.step}; nothing was saved since the last "
                "checkpoint. Lower the rate or look at the data, then start again"
            )

    def _validate(self) -> None:
        assert self.validation_mix is not None
        size = self.recipe.batch // self.cluster.world // self.recipe.run.accumulate
        precision = self.recipe.run.precision
        values = validate(self.module, self.validation_mix, size, self.objective, self.cluster, precision)
        self._check_finite(torch.tensor([values["loss"]]))
        if self.journal is not None:
            self.journal.write(self.step, "validation", values)

    def _metrics(self) -> None:
        """Sample and score in the first process, the others wait for as long as it takes."""
        assert self.evaluation is not None
        network = self.whole_network()
        if network is not None and self.journal is not None:
            kind, values = self.evaluation.attempt(network, self.step)
            self.journal.write(self.step, kind, values)
        self.cluster.wait()

    def _metrics_are_due(self) -> bool:
        """Whether the run was killed between the checkpoint it resumes from and the metrics of that step."""
        if self.evaluation is None or not self.step or not _due(self.step, self.recipe.every.metrics):
            return False
        events = read_log(self.journal.path) if self.journal is not None else []
        done = any(e["step"] == self.step and e["kind"].startswith("metrics") for e in events)
        return self.cluster.any(self.cluster.first and not done)

    def _finish(self) -> None:
        """Final weights: the last ones, and the averages of the widths asked for, in the official key layout.

        MissingRequirement in all processes when an average cannot be made; everything else is written before.
        """
        state = gather_full(self.network.state_dict().items(), self.cluster.first)
        config = self.network.config
        result = Result(self.weights, self.recipe, config, self.step, self.start_digest, self._few_step())
        if self.cluster.first:
            result.write("last", state)
        failed = []
        for width, average in self.averages.final(self.step):
            name = f"ema-{width:g}"
            if isinstance(average, AvBenchError):
                failed.append(f"{self.weights / name}.safetensors is not written: {average}")
            else:
                result.write(name, state | average)
        if self.cluster.any(bool(failed)):
            raise MissingRequirement("\n".join(failed) or "the first process could not make all averages; it says why")


def _due(step: int, *every: int) -> bool:
    return any(number > 0 and step % number == 0 for number in every)
