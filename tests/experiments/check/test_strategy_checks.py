"""Each check of strategies detects the fault that it is made for, and names a file and a line."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from flwr.app import Message, MetricRecord

from experiments import check
from experiments.check import places, strategy_checks
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from strategies.base.strategy import Strategy
from strategies.pools.mean import Mean


class Remembers(Strategy):
    """Two runs differ: the class counts its server steps."""

    steps: ClassVar[int] = 0

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        Remembers.steps += 1
        return {k: v + 1e-6 * Remembers.steps for k, v in pooled.items()}


class Explodes(Strategy):
    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return {k: v / 0.0 for k, v in pooled.items()}


class Stands(Strategy):
    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return model


class Unpicklable(Strategy):
    def __init__(self) -> None:
        self.rule = lambda x: x


class CountsReplies(Strategy):
    """How far it goes depends on how many replies came: on blocks, that is, not on clients."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        self.server_lr = 1 / sum(bool(reply.content.array_records) for reply in kept)
        return super().aggregate_train(server_round, kept)


class LastWins(Strategy):
    """The last block that comes is the new model."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = [reply for reply in replies if reply.content.array_records]
        return super().aggregate_train(server_round, kept[-1:])


@dataclass
class TupleParameter(Strategy):
    betas: tuple[Any, ...] = (0.9, (1, 2))


class Forgets(Strategy):
    def __init__(self, mu: float = 0.1) -> None:
        self.other = mu


class LooksAtNumbers(Strategy):
    """Branches on a value: vmap cannot."""

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        grads, value, buffers = super().gradient(model, anchor, batch, loss)
        return (grads if float(value) > 1 else {k: g * 0.5 for k, g in grads.items()}), value, buffers


class IgnoresPadding(Strategy):
    """Takes samples for real that only fill a block."""

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        return super().gradient(model, anchor, replace(batch, mask=None), loss)


class WritesInPlace(Strategy):
    """Spoils the global model for the clients after it."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        done = super().local_update(model, state, batches, loss, local_)
        model["0.bias"].add_(1e-3)
        return done


class WritesIntoItsState(Strategy):
    """Counts its rounds in place: not in the first one, in which there is no state."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, _, metrics = super().local_update(model, {}, batches, loss, local_)
        return new, {"n": state["n"].add_(1) if state else torch.ones(1)}, metrics


class CountsInPython(Strategy):
    """Returns a number of Python's as its state."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Any, Metrics]:
        new, _, metrics = super().local_update(model, {}, batches, loss, local_)
        return new, {"n": 3}, metrics


class RemembersByItself(Strategy):
    """Counts calls, which are not rounds of a client, in place of the client's state."""

    calls: ClassVar[list[int]] = []

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, _, metrics = super().local_update(model, {}, batches, loss, local_)
        self.calls.append(1)
        return new, {"n": torch.tensor(len(self.calls))}, metrics


class CountsInFloats(Strategy):
    """Its state is no tensor."""

    def local_update(self, model: Tree, state: Tree, batches: Any, loss: Loss, local_: Local) -> Any:
        new, _, metrics = super().local_update(model, {}, batches, loss, local_)
        return new, {"n": 1.0}, metrics


class SpoilsItsState(Strategy):
    """Its state becomes NaN in the client's second round."""

    def local_update(self, model: Tree, state: Tree, batches: Any, loss: Loss, local_: Local) -> Any:
        new, _, metrics = super().local_update(model, {}, batches, loss, local_)
        return new, {"n": state.get("n", torch.tensor(torch.inf)) * (0 if state else 1)}, metrics


class MeanOfMeans(Mean):
    """Not associative: merging takes the middle of two means."""

    def merge(self, a: Tree, b: Tree) -> Tree:
        return {k: (x + b[k]) / 2 for k, x in a.items()}


class OfMeans(Strategy):
    @property
    def pool(self) -> Pool:
        return MeanOfMeans()


class HidesPersonal(Strategy):
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        list(replies)
        return None


def at(text: str) -> str:
    """The place of the first line of this file that holds ``text``."""
    lines = Path(__file__).read_text().splitlines()
    return f" (test_strategy_checks.py, line {next(n for n, line in enumerate(lines, 1) if text in line)})"


BROKEN: list[tuple[type[Strategy], Callable[[Any], None], str]] = [
    (Explodes, strategy_checks.check_model_stays_finite, "NaN or infinity"),
    (Stands, strategy_checks.check_model_stays_finite, "did not change the model"),
    (Remembers, strategy_checks.check_same_digest_twice, "two runs with one seed differ"),
    (Unpicklable, strategy_checks.check_pickles, "pickle"),
    (CountsReplies, strategy_checks.check_block_size_does_not_matter, "block_size 1 against 4"),
    (CountsReplies, strategy_checks.check_pooling_place_does_not_matter, "one reply a client"),
    (LastWins, strategy_checks.check_order_of_replies_does_not_matter, "replies reversed"),
    (TupleParameter, strategy_checks.check_parameters_travel, "do not fit into a message"),
    (Forgets, strategy_checks.check_parameters_travel, "no attribute 'mu'"),
    (LooksAtNumbers, strategy_checks.check_loop_and_vmap_agree, "vmap cannot run local_update"),
    (IgnoresPadding, strategy_checks.check_loop_and_vmap_agree, "vmap against loop"),
    (IgnoresPadding, strategy_checks.check_chunk_does_not_matter, "chunk 3 against loop"),
    (WritesInPlace, strategy_checks.check_local_update_is_pure, f"the global model's 0.bias{at('.add_(1e-3)')}"),
    (WritesIntoItsState, strategy_checks.check_local_update_is_pure, f"client's state's n{at('].add_(1) if')}"),
    (
        CountsInPython,
        strategy_checks.check_local_update_is_pure,
        "such as torch.as_tensor gives (test_strategy_checks.py",
    ),
    (
        RemembersByItself,
        strategy_checks.check_local_update_is_pure,
        "another state the second time (test_strategy_checks.py",
    ),
    (
        CountsInFloats,
        strategy_checks.check_model_stays_finite,
        "n in the new state of local_update is of type float; it must",
    ),
    (SpoilsItsState, strategy_checks.check_model_stays_finite, "NaN in n of its new state; it keeps"),
    (RemembersByItself, strategy_checks.check_each_client_gets_its_own_state, "on loop against calls by hand"),
    (OfMeans, strategy_checks.check_pool_is_associative, "pool: "),
    (Explodes, strategy_checks.check_app_answers_as_the_grid, ""),
    (HidesPersonal, strategy_checks.check_personal_evaluation, "personal_clients = None"),
]


@pytest.mark.parametrize("cls, broken, why", BROKEN, ids=lambda x: getattr(x, "__name__", "").removeprefix("check_"))
def test_each_check_detects_its_fault(cls: type[Strategy], broken: Callable[[Any], None], why: str) -> None:
    [target] = check.targets_of("strategy", cls.__name__, cls)
    result = check.run_check(target, broken)
    if cls is Explodes and broken is strategy_checks.check_app_answers_as_the_grid:
        assert result.why == ""  # the server's fault is none of the client's half
    else:
        assert why in result.why and "\n" not in result.line() and result.line().startswith("FAILED strategy")
        assert places.PLACE.search(result.why), result.why
        assert " (test_strategy_checks.py, line " in result.why or cls in (Unpicklable, Forgets), result.why


def test_every_check_of_strategies_has_a_fault_that_it_detects() -> None:
    never = {
        strategy_checks.check_app_answers_as_the_grid
    }  # both halves come from one class here; a device with other code cannot be faked
    assert {broken for _, broken, _ in BROKEN} == set(strategy_checks.CHECKS) and never <= set(strategy_checks.CHECKS)
