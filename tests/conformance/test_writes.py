"""A network, a loss, a metric, a transform, a local rule and a server step that write into all that they are given.

They give the numbers of their twins that write into nothing, and what the user handed over stays as it was.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.app import make_app
from experiments.run import Outcome, run
from fl_sim import Batch, Callback, Local, Loss, Partition, RoundFailed, Run, Task, from_arrays, rng, tree
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.run_block import run_plan
from fl_sim.local import Metrics, train
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy

DRAW = np.random.default_rng(0)
X, XT = DRAW.normal(size=(46, 3)), DRAW.normal(size=(12, 3))
Y, YT = (1 + (x[:, 0] > 0) for x in (X, XT))


def mine(values: Tensor, writes: bool) -> Tensor:
    """``values`` itself, to be written into, or a copy."""
    return values if writes else values.clone()


class Net(nn.Module):
    """Standardises its input; standardises its outputs too in evaluation mode."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        with rng.keyed_globals(3):
            self.writes, self.layers = writes, nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(mine(x, self.writes).sub_(0.5).div_(0.9))
        return outputs


def task_of(writes: bool, x: np.ndarray, xt: np.ndarray, y: np.ndarray, yt: np.ndarray) -> Task:
    """Labels 1 and 2; loss and metrics subtract 1 in place, and turn outputs into sigmoids in place."""

    def probability(outputs: Tensor, batch: Tree) -> Tensor:
        outputs, y = mine(outputs, writes), mine(batch["y"], writes)
        y -= 1
        mine(batch["x"], writes).mul_(0)
        return outputs.div_(2).sigmoid_().gather(1, y[:, None])[:, 0]

    def loss(outputs: Tensor, batch: Tree) -> Tensor:
        return batch["x"].square().mean(1) - probability(outputs, batch)

    def transform(batch: Tree, words: Tensor | None) -> Tree:
        return {**batch, "x": mine(batch["x"], writes).mul_(0.5)}

    metrics = {"p": probability, "q": probability}
    made = from_arrays(x, y, clients=np.arange(46) % 5, x_test=xt, y_test=yt, outputs=2, loss=loss, metrics=metrics)
    return replace(made, transform=transform)


class Writer(Strategy):
    """Momentum that each client keeps, and a server step of half the way."""

    def __init__(self, writes: bool = True) -> None:
        self.writes = writes

    def initial_state(self, model: Tree) -> Tree:
        return {k: mine(x, self.writes).mul_(0) for k, x in model.items()}

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, metrics = train(model, batches["train"], local, loss.gradient)
        change = tree.sub(new, model)
        state = {k: mine(x, self.writes).mul_(0.9).add_(change[k]) for k, x in state.items()}
        reply = {k: mine(x.data, self.writes).mul_(0.5) + 0.5 * new[k] + state[k] for k, x in model.items()}
        return reply, state, metrics

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        pooled = {k: mine(x, self.writes).sub_(model[k]) for k, x in pooled.items()}
        return {k: mine(x, self.writes).add_(pooled[k], alpha=0.5) for k, x in model.items()}


class Kept(Callback):
    """Keeps the model of each round, without a copy."""

    def __init__(self) -> None:
        self.models: list[Tree] = []

    def on_round_end(self, run: Run, row: dict[str, object]) -> None:
        self.models.append(run.model)


def outcome_of(writes: bool, engine: str, out: Path, **settings: Any) -> Outcome:
    """A run of two rounds with personal evaluation; asserts that the user's arrays and network are unchanged."""
    given = [a.copy() for a in (X, XT, Y, YT)]
    model, task = Net(writes), task_of(writes, *given)
    before, kept = tree.digest(model.state_dict()), Kept()
    found = run(
        model=model, task=task, strategy=Writer(writes), engine=engine, clients=5, cohort=3, rounds=2, dtype="float64",
        block_size=2, partition={"name": "natural", "held_out": 0.25}, personalize_steps=1,
        local={"batch_size": 4, "lr": 0.3}, out=str(out), callbacks=[kept], **settings,
    )  # fmt: skip
    assert tree.digest(model.state_dict()) == before
    assert all(map(np.array_equal, given, (X, XT, Y, YT)))
    assert [*map(tree.digest, kept.models)] == [*found.log.rounds["digest"]]
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome_of(False, "loop", tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_what_writes_gives_the_numbers_of_what_does_not(engine: str, plain: Outcome, tmp_path: Path) -> None:
    found = outcome_of(True, engine, tmp_path)
    assert float(tree.norm(tree.sub(found.model, plain.model))) < 1e-9
    for name in ("loss", "p", "q", *(c for c in plain.log.rounds if c.startswith("personal_"))):
        assert np.allclose(found.log.rounds[name], plain.log.rounds[name], rtol=1e-9, equal_nan=True), name
    assert "fallback" not in set(found.log.events.get("event", ()))


class Fails(Writer):
    """Writes into everything, then gives up."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        super().local_update(model, state, batches, loss, local)
        raise ZeroDivisionError("gives up")


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("kind", [Writer, Fails])
def test_a_block_leaves_model_states_and_samples_as_they_are(engine: str, kind: type[Strategy]) -> None:
    """As in Ray's workers, where they lie in shared memory."""
    loss = Loss(Net(True), task_of(True, X, XT, Y, YT), torch.float64)
    learner = make_app(loss, Partition.of(np.array_split(np.arange(46), 4)), {"mine": kind}).learner
    model, states = loss.initial(), {0: tree.scale(loss.initial(), 0.5)}
    settings = {"strategy": "mine", "strategy.writes": True, "local.lr": 0.3, "local.batch_size": 4, "local.epochs": 1}
    orders = [(c, c, settings) for c in range(4)]
    before = [tree.digest(t) for t in (model, states[0], learner.data)]
    [plan] = plan_blocks(learner, "train", orders, states, 4)
    result, again = (run_plan(plan, model, learner, engine, 0, None) for _ in range(2))
    assert [tree.digest(t) for t in (model, states[0], learner.data)] == before
    assert [bool(client.reason) for client in result.clients] == [kind is Fails] * 4
    for one, two in zip(result.clients, again.clients, strict=True):  # a worker was lost, and another one runs it again
        assert tree.digest(one.state) == tree.digest(two.state) and tree.digest(one.reply) == tree.digest(two.reply)


@pytest.mark.parametrize("hook", ["on_round_start", "on_round_end"])
def test_a_callback_that_writes_into_the_model_fails_the_round(hook: str, tmp_path: Path) -> None:
    callback = Callback()
    setattr(callback, hook, lambda run, *row: next(iter(run.model.values())).mul_(2))
    with pytest.raises(RoundFailed, match="round [01]: a callback has written into run.model in place"):
        run(model="lr", clients=2, rounds=1, local={"batch_size": 0}, out=str(tmp_path), callbacks=[callback])
