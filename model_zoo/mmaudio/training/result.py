"""What a training leaves behind: weight files whose header says what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model_zoo.mmaudio.config import NetworkConfig
from model_zoo.mmaudio.flow.few_step import FewStep
from model_zoo.mmaudio.flow.load import header_of
from model_zoo.mmaudio.flow.lora import Lora, adapters_of, plain
from model_zoo.mmaudio.training.checkpoints import write_weights
from model_zoo.mmaudio.training.recipe import FlowRecipe


def whole(state: Mapping[str, Tensor], lora: Lora | None) -> dict[str, Tensor]:
    """A network's state in the official layout, adapters merged."""
    return dict(state) if lora is None else plain(state, lora.scale)


@dataclass(frozen=True)
class Result:
    """Writes weights of ``step`` into ``folder``; ``start_digest`` is that of the weights training started from."""

    folder: Path
    recipe: FlowRecipe
    config: NetworkConfig
    step: int
    start_digest: str | None = None
    few_step: FewStep | None = None

    def write(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Weights of the whole network; with ``lora`` the adapters alone, and the whole one besides where asked for.

        MissingRequirement when the disk refuses.
        """
        lora = self.recipe.lora
        about: dict[str, Any] = {"network": asdict(self.config), "recipe": self.recipe.name}
        about |= {"step": self.step, "weights": name}
        if self.start_digest is not None:
            about |= {"init": self.recipe.init, "init_digest": self.start_digest}
        if self.few_step is not None:
            about |= self.few_step.header()
        if lora is None or lora.merged:
            suffix = "" if lora is None else "-merged"
            write_weights(self.folder / f"{name}{suffix}.safetensors", whole(state, lora), header_of(about))
        if lora is not None:
            about["lora"] = {"rank": lora.rank, "alpha": lora.alpha, "targets": list(lora.targets)}
            write_weights(self.folder / f"{name}.safetensors", adapters_of(state), header_of(about))
