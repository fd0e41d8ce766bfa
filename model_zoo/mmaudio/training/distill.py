"""Few steps: a student learns the mean velocity of each of its large steps from a teacher's whole path.

The teacher goes from noise to sound in many steps, with guidance; the states where a step of the student begins and
ends are the student's inputs and targets (progressive distillation, Salimans and Ho, arXiv 2202.00512, with guidance
in the student as in Meng et al., arXiv 2210.03142; here all steps at once, along the teacher's own paths). The student
keeps the layout of an ordinary network. Of the training features only the conditions are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from av_bench.contracts import UsageError
from model_zoo.mmaudio.flow import matching, solvers
from model_zoo.mmaudio.flow.few_step import FewStep
from model_zoo.mmaudio.flow.load import FIXED, FlowWeights, filled, read_flow
from model_zoo.mmaudio.flow.network import FlowNetwork, Preprocessed
from model_zoo.mmaudio.training.mix import Batch
from model_zoo.mmaudio.training.objective import Terms
from model_zoo.mmaudio.training.recipe import FlowRecipe
from model_zoo.mmaudio.training.tuning import DISTILL_EVALUATIONS, DISTILL_GUIDANCE, Distill


class Distillation:
    """The objective of a student; ``few_step`` is what it will be, ``digest`` that of the teacher's tensors."""

    def __init__(
        self, teacher: FlowNetwork, few_step: FewStep, evaluations: int, digest: str, guide_from: float = 0.0
    ) -> None:
        self.teacher, self.few_step, self.evaluations, self.digest = teacher, few_step, evaluations, digest
        # A teacher for few steps is exact in its own steps; the path of another is followed to second order.
        self._solve = solvers.multistep if teacher.few_step is None else solvers.euler
        self._guidance = few_step.guidance if teacher.few_step is None else 1.0
        self._guide_from = guide_from

    @classmethod
    def of(cls, recipe: FlowRecipe, student: FlowNetwork) -> Distillation | None:
        """What the recipe asks for, on the student's device; None without ``distill``.

        UsageError for a teacher of other latents or conditions, or whose steps are no multiple of the student's.
        """
        wanted = recipe.distill
        if wanted is None:
            return None
        where = f"config {recipe.name}: distill"
        found = read_flow(wanted.teacher)
        few_step, evaluations = _planned(wanted, found, where)
        config = found.config or student.config
        other = [f"{k} {vars(config)[k]}" for k in FIXED if vars(config)[k] != vars(student.config)[k]]
        if other:
            raise UsageError(f"{where}: teacher {found.source} has another {', '.join(other)} than the student")
        teacher = filled(config, found.tensors, found.source)
        for name in ("latent_mean", "latent_std"):
            if not torch.equal(teacher.get_parameter(name), student.get_parameter(name).detach().cpu()):
                raise UsageError(
                    f"{where}: teacher {found.source} has another {name} than init; take one's init from it"
                )
        lengths = student.config
        teacher.set_lengths(lengths.latent_len, lengths.clip_len, lengths.sync_len)
        teacher.few_step = found.few_step
        return cls(teacher.to(student.latent_mean.device), few_step, evaluations, found.digest, wanted.guide_from)

    def terms(self, module: nn.Module, batch: Batch) -> Terms:
        """Error of the student's velocity at the start of each of its steps."""
        states = self.states(batch)
        count, steps = len(batch), self.few_step.steps
        wanted = (states[:, 1:] - states[:, :-1]) * steps
        t = torch.arange(steps, device=states.device, dtype=torch.float32) / steps
        rows = batch.rows
        conditions = (x.float().repeat_interleave(steps, dim=0) for x in (rows.clip, rows.sync, rows.text))
        velocity = module(
            states[:, :-1].flatten(0, 1),
            *conditions,
            t.repeat(count),
            drop_video=batch.drop_video.repeat_interleave(steps),
            drop_text=batch.drop_text.repeat_interleave(steps),
        )
        loss = matching.loss_per_sample(velocity.float(), wanted.flatten(0, 1))
        return Terms(loss.view(count, steps), t.expand(count, steps))

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """Normalised latents ``(B, steps + 1, N, C)`` of the teacher where the student's steps begin and end."""
        rows, passed = batch.rows, []
        pre = self._conditions(rows.clip.float(), rows.sync.float(), rows.text.float(), batch)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            passed.append(x)
            if self._guidance == 1:
                return self.teacher.flow(x, t, pre).float()
            real, empty = self.teacher.flow(torch.cat([x, x]), torch.cat([t, t]), pre).float().chunk(2)
            guided = empty + self._guidance * (real - empty)
            return torch.where((t < self._guide_from)[:, None, None], real, guided)

        last = self._solve(velocity, batch.noise.float(), self.few_step.steps * self.evaluations)
        return torch.stack([*passed[:: self.evaluations], last], dim=1)

    def _conditions(self, clip: Tensor, sync: Tensor, text: Tensor, batch: Batch) -> Preprocessed:
        given = self.teacher.dropped(clip, sync, text, batch.drop_video, batch.drop_text)
        real = self.teacher.preprocess(*given)
        return real if self._guidance == 1 else real.join(self.teacher.empty(len(batch)))


def _planned(wanted: Distill, found: FlowWeights, where: str) -> tuple[FewStep, int]:
    """What the student will be, and the teacher's steps for each of its own."""
    few = found.few_step
    if few is None:
        guidance = DISTILL_GUIDANCE if wanted.guidance is None else wanted.guidance
        return FewStep(wanted.steps, guidance), wanted.evaluations or DISTILL_EVALUATIONS
    each, rest = divmod(few.steps, wanted.steps)
    if rest or each < 2:
        raise UsageError(f"{where}: a teacher of {few.steps} steps cannot teach {wanted.steps}; choose a part of them")
    for name, value, own in (("guidance", wanted.guidance, few.guidance), ("evaluations", wanted.evaluations, each)):
        if value is not None and value != own:
            raise UsageError(f"{where}: {name} is {own:g} with this teacher of {few.steps} steps; leave {name} out")
    return FewStep(wanted.steps, few.guidance), each
