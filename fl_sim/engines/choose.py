"""Engines: how the clients of a block are run. Each yields ``Outcome``s; none knows an algorithm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fl_sim.blocks.learner import Learner
from fl_sim.blocks.resolve import Block
from fl_sim.engines.loop import run_loop
from fl_sim.engines.outcome import Outcome
from fl_sim.engines.vmap import run_vmap
from fl_sim.tree import Tree

__all__ = ["ENGINES", "Choice", "Engine", "Outcome", "choose"]

Engine = Callable[[Block, Tree, Learner, int], Iterator[Outcome]]
"""``(block, global model, learner, inner chunk) -> outcomes``."""
ENGINES: dict[str, Engine] = {"loop": run_loop, "vmap": run_vmap}


@dataclass(frozen=True)
class Choice:
    """An engine by name, and why."""

    name: Literal["loop", "vmap"]
    reason: str = ""


def choose(wanted: str, module: nn.Module, device: str | torch.device) -> Choice:
    """The engine for ``wanted`` (auto, loop, vmap): a fixed rule of model and kind of device, never a timing.

    vmap cannot take BatchNorm: it writes running statistics, and a padded batch has other statistics than its real
    samples; so these models always run on the loop. ``auto`` takes vmap on a GPU;
    on a CPU, vmap for models without convolutions (batched matrix products gain there) and the loop for the rest
    (grouped convolutions lose). Raises ValueError for an unknown name.
    """
    if wanted not in ("auto", *ENGINES):
        raise ValueError(f"engine = {wanted!r}: must be one of auto, {', '.join(ENGINES)}")
    kinds = {type(m).__name__ for m in module.modules()}
    if wanted != "loop" and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        return Choice(
            "loop",
            "vmap cannot take BatchNorm (running statistics; batches of unequal size); this model runs on the loop",
        )
    if wanted in ("loop", "vmap"):
        return Choice("loop" if wanted == "loop" else "vmap")
    if torch.device(device).type == "cuda" or not any(kind.startswith("Conv") for kind in kinds):
        return Choice("vmap")
    return Choice("loop")
