"""Strategies for tests whose clients keep a state, and mutations of the states that a block gets."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch

from fl_sim import Local, Loss, local, tree
from fl_sim.learning.loss import Batch
from fl_sim.learning.rule import Metrics
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy


class Remembers(Strategy):
    """No paper: ``w' = train(w) + beta * s``, ``s' = s + w' - w``, the sum of the client's updates."""

    def __init__(self, beta: float = 0.1) -> None:
        self.beta = beta

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = local.train(model, batches["train"], local_, loss.gradient)
        if state:
            new = {k: x + self.beta * state[k] for k, x in new.items()}
        change = tree.sub(new, model)
        return new, {k: state[k] + x if state else x for k, x in change.items()}, metrics


class Visits(Remembers):
    """No paper: the state also has an integer, a leaf that grows by one element a visit and one whose dtype alternates.

    The metric ``visits`` is the number of rounds in which the client trained.
    """

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        sums = {k: x for k, x in state.items() if k in model}
        new, sums, metrics = super().local_update(model, sums, batches, loss, local_)
        own = metrics["loss"][None]
        losses = torch.cat([state["losses"], own]) if state else own
        visits = state["visits"] + 1 if state else torch.ones((), dtype=torch.int64, device=own.device)
        last = own.to(torch.float32 if len(losses) % 2 else torch.float64)
        return new, {**sums, "losses": losses, "visits": visits, "last": last}, {**metrics, "visits": visits.float()}


class Started(Remembers):
    """No paper: as ``Remembers``, whose state starts as zeros."""

    def initial_state(self, model: Tree) -> Tree:
        return tree.zeros(model)

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = local.train(model, batches["train"], local_, loss.gradient)
        new = tree.add(new, state, self.beta)
        return new, tree.add(state, tree.sub(new, model)), metrics


class Stumbles(Strategy):
    """No paper: plain training; ``visits`` counts rounds, and in a client's second one ``how`` holds NaN.

    It fails then, keeps the state of its first round, and fails again in the next.
    """

    def __init__(self, how: Literal["reply", "metric", "state"] = "reply") -> None:
        self.how = how

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = local.train(model, batches["train"], local_, loss.gradient)
        visits = state["visits"].add_(1) if state else torch.ones((), dtype=loss.dtype, device=loss.device)
        spoilt = torch.where(visits == 2, torch.nan, 0.0)
        new = {k: x + spoilt if self.how == "reply" else x for k, x in new.items()}
        metrics = {k: x + spoilt if self.how == "metric" else x for k, x in metrics.items()}
        return new, {"visits": visits, "best": visits + spoilt if self.how == "state" else 1 / (visits - 1)}, metrics


class Odd(Strategy):
    """No paper: a state of every dtype and layout, written into in place, whose names change their order each visit.

    The reply depends on the order of names. ``n`` is the number of rounds in which the client trained.
    """

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = local.train(model, batches["train"], local_, loss.gradient)
        bias = next(k for k in new if k.endswith("bias"))
        weight = new[next(k for k in new if k.endswith("weight"))]
        numbers = [
            x.real.mean().to(loss.dtype)
            for x in state.values()
            if x.numel() and (x.is_floating_point() or x.is_complex())
        ]
        shift = sum((0.01 * (place + 1) * x for place, x in enumerate(numbers)), torch.zeros(()))
        new = {**new, bias: new[bias] + shift}
        visits = state["n"].add_(1) if state else torch.ones((), dtype=torch.int64)
        turned = torch.complex(weight, -weight)
        leaves = {
            "n": visits,
            "z": turned.conj() + state["z"] if state else turned.conj(),
            "even": visits % 2 == 0,
            "bf16": weight.bfloat16(),
            "int8": visits.to(torch.int8).expand(3),
            "empty": weight[:, :0],
            "turned": weight.T,
            "model": model[bias],
            "twice": new[bias],
            "also": new[bias][:2],
        }
        names = reversed([*state]) if state else leaves
        return new, {k: leaves[k] for k in names}, {**metrics, "n": visits.to(loss.dtype)}


SCRATCH = torch.zeros(3)


class Scratch(Strategy):
    """No paper: the state is one tensor of this module, into which each client writes its loss."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = local.train(model, batches["train"], local_, loss.gradient)
        SCRATCH.fill_(float(metrics["loss"]))
        return new, {"s": SCRATCH}, metrics


def lost(states: dict[int, Tree]) -> dict[int, Tree]:
    """All but the first client's."""
    return dict([*states.items()][1:])


def swapped(states: dict[int, Tree]) -> dict[int, Tree]:
    """The first two clients' states, each the other's."""
    names = [*states]
    return {**states, **dict(zip(names[:2], [states[c] for c in reversed(names[:2])], strict=True))}
