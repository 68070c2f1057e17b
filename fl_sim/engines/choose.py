"""The engines by name, and the rule that chooses one. An engine runs the clients of a block and knows no algorithm."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from fl_sim.blocks.learner import Learner
from fl_sim.blocks.resolve import Block
from fl_sim.engines.loop import run_loop
from fl_sim.engines.outcome import Outcome
from fl_sim.engines.vmap import run_vmap
from fl_sim.kernels.layers import has_batch_norm
from fl_sim.tree import Tree

__all__ = ["ENGINES", "Choice", "Engine", "Outcome", "choose"]

Engine = Callable[[Block, Tree, Learner, int], Iterator[Outcome]]
"""``(block, global model, learner, inner chunk) -> outcomes``."""
ENGINES: dict[str, Engine] = {"loop": run_loop, "vmap": run_vmap}


@dataclass(frozen=True)
class Choice:
    """The name of an engine, and why it was chosen where that is not obvious."""

    name: Literal["loop", "vmap"]
    reason: str = ""
    by_sizes: bool = False
    """Whether vmap could take the model, and the sizes of clients alone speak for the loop."""
    by_convolutions: bool = False
    """Whether vmap could take the model, and its convolutions alone speak for the loop: sizes may speak for vmap."""


class Costs(NamedTuple):
    """How many steps of the loop one batched step takes as long as: ``fixed + most W / (W + half) C``.

    C clients, W = parameters x batch size.
    """

    fixed: float
    most: float
    """Of each client, where W is large."""
    half: float
    """W at which a client costs half of that."""


DENSE = Costs(3.0, 0.5, 2_000_000)
"""Of networks without convolutions: batched matrix products."""
CONVOLUTIONS = Costs(3.0, 1.2, 200_000)
"""Grouped convolutions take longer than one after another, unless they are small."""
CONVOLUTIONS_BY_RULE = Costs(1.0, 0.75, 200_000)
"""Of rules with ``own_derivatives``, which cost the loop more than ``loss.gradient`` does."""


def worth(
    steps: int, batched_steps: int, clients: float, parameters: int, batch_size: int, costs: Costs = DENSE
) -> Choice:
    """vmap where its steps pay on a CPU, by sizes alone, else the loop.

    A batched step trains all clients of its block, those included that have finished, as padding. Without convolutions
    it takes as long as ``3 + s C`` steps of the loop, where ``s = W / (W + 2 million) / 2`` with ``W = parameters x
    batch size``: small models cost next to nothing for each client, large ones half of what they cost on the loop. With
    convolutions it is ``3 + 1.2 W / (W + 200 000) C``, and ``1 + .75 W / (W + 200 000) C`` for rules that take
    derivatives themselves (``LocalRule.own_derivatives``). So vmap is worth it where more clients than that train at a
    time. ``python -m experiments.bench.engines`` shows it for every recipe.

    Parameters
    ----------
    steps : int
        Steps of all clients of some rounds.
    batched_steps : int
        Steps of the longest client of each block of these rounds.
    clients : float
        C: clients of a block, on average.
    parameters : int
        Numbers that train.
    batch_size : int
        Samples of a step.
    costs : Costs (default: DENSE)
        Of the network's kind, and of the rule's.
    """
    work = parameters * batch_size
    needed = costs.fixed + costs.most * work / (work + costs.half) * clients
    at_a_time = steps / max(batched_steps, 1)
    if not steps or at_a_time >= needed:
        return Choice("vmap")
    few = f"of a block's {clients:.3g} clients {at_a_time:.2g} train at a time on average, less than {needed:.2g}"
    return Choice(
        "loop", f"auto is the loop, because it is faster here: {few} (--engine vmap batches them all the same)", True
    )


def choose(
    engine: str, module: nn.Module, device: str | torch.device, unpaddable: str = "", written: Collection[str] = ()
) -> Choice:
    """The engine for a model on a kind of device: a fixed rule, never a measured time.

    vmap cannot run BatchNorm, which writes running statistics in place, and whose statistics of a padded batch differ
    from those of the real samples; models with BatchNorm, and those that write into other buffers, always run on the
    loop. So does a loss whose batches must not be padded. ``auto`` is vmap on a GPU; on a CPU it is vmap for models
    without convolutions (batched matrix products are faster there) and the loop for the others (grouped convolutions
    are slower). Where the sizes of clients are known, ``worth`` decides instead of the latter two.

    Parameters
    ----------
    engine : str
        As configured: auto, loop or vmap.
    module : nn.Module
        The network.
    device : str | torch.device
        Where clients train.
    unpaddable : str (default: "")
        Why batches must not be padded, see ``fl_sim.learning.probe``; empty where they may be.
    written : Collection of str (default: none)
        Buffers into which the network writes in training, such as the averages of an InstanceNorm or a codebook.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if engine not in ("auto", *ENGINES):
        raise ValueError(f"engine = {engine!r}: must be one of auto, {', '.join(ENGINES)}")
    kinds = {type(m).__name__ for m in module.modules()}
    if engine != "loop" and has_batch_norm(module):
        return Choice(
            "loop",
            "vmap cannot take BatchNorm (running statistics; batches of unequal size); this model runs on the loop",
        )
    if engine != "loop" and written:
        names = ", ".join(sorted(written))
        return Choice(
            "loop", f"vmap cannot take buffers that a network writes into ({names}); this model runs on the loop"
        )
    if engine != "loop" and unpaddable:
        return Choice("loop", f"vmap pads batches of unequal size, but {unpaddable}; this run is on the loop")
    if engine in ("loop", "vmap"):
        return Choice("loop" if engine == "loop" else "vmap")
    if torch.device(device).type == "cuda" or not any(kind.startswith("Conv") for kind in kinds):
        return Choice("vmap")
    return Choice("loop", by_convolutions=True)
