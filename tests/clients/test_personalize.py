"""A client's own model is what is evaluated: a personal head (FedPer) is the client's own, before and after tuning."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.app import make_app
from clients.personalize import Personalize, PersonalizeOwn
from clients.rules import rule_for
from fl_sim import Callback, Partition, Run, SimulationGrid, from_arrays, rng, run_rounds, tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.registry import HOME
from fl_sim.rounds.callbacks import RunResult
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base import Strategy, name_of
from strategies.fedavg import FedAvg

LR, TUNE = 0.5, 0.25
TRAINING = {"rounds": 2, "local.lr": LR, "local.batch_size": 0, "local.steps": 5}
PERSONAL = {"rounds": 2, "personalize.steps": 1, "personalize.lr": TUNE, "personalize.every": 1}


@dataclass
class FedPer(Strategy):
    """The last ``layers`` layers stay with the client."""

    layers: int = 1

    def home(self, loss: Loss) -> Sequence[str]:
        return loss.trainable[-2 * self.layers :]


@dataclass
class Halved(Strategy):
    """No paper: the client's own model is half of the global one. ``how``: what is wrong with it."""

    how: str = ""

    def own_model(self, model: Tree, state: Tree, batches: Iterable[Batch], loss: Loss) -> Tree:
        half = tree.scale(model, 0.5)
        wrong = {"none": None, "lacks": {k: x for k, x in half.items() if k != "2.bias"}}
        return wrong.get(self.how, half)  # type: ignore[return-value]


class States(Callback):
    """The states after each round, and before evaluation."""

    def __init__(self) -> None:
        self.after: list[dict[int, str]] = []
        self.last: dict[int, Tree] = {}

    def on_round_end(self, run: Run, row: Any) -> None:
        self.last = dict(run.grid.states)  # type: ignore[attr-defined]
        self.after.append({c: tree.digest(x) for c, x in self.last.items()})


def network() -> nn.Module:
    with rng.keyed_globals(3):
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))


def opposed() -> tuple[Loss, Partition]:
    """Four clients of twenty samples, who call the same groups by other names: only heads of their own can agree."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(80, 5))
    y = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
    y = (y + np.arange(80) // 20) % 4
    parts = Partition.of(np.split(np.arange(80), 4)).hold_out(0.5, seed=0)
    return Loss(network(), from_arrays(x, y, x_test=x, y_test=y), torch.float64), parts


def trained(
    strategy: Strategy, engine: str, unseen: int = 0, callbacks: Sequence[Callback] = (), cohort: int = 0
) -> tuple[RunResult, SimulationGrid]:
    loss, partition = opposed()
    strategy.cohort = cohort
    app = make_app(loss, partition, {name_of(type(strategy)): type(strategy)})
    grid = SimulationGrid(app, 4, holdout_clients=unseen, engine=engine)
    start, train, personal = records.encode(loss.initial()), records.config(TRAINING), records.config(PERSONAL)
    result = run_rounds(
        strategy, grid, start, 2, train_config=train, evaluate_config=personal, callbacks=callbacks, log=None
    )
    return result, grid


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_personal_head_is_the_clients_own_before_and_after_fine_tuning(engine: str) -> None:
    seen, answers = States(), {}

    class Answers(Callback):
        def on_block(self, run: Run, result: Any) -> None:
            answers.update({a.client: a for a in result.clients if result.plan.message_type == "evaluate"})

    result, _ = trained(FedPer(), engine, unseen=1, callbacks=[seen, Answers()], cohort=2)
    loss, partition = opposed()
    world, initial = records.decode(result.arrays), loss.initial()
    assert 2 <= len(seen.last) <= 3 and set(answers) == {0, 1, 2, 3}
    for client, answer in answers.items():
        own = {
            k: seen.last[client][f"home::{k}"] if client in seen.last else initial[k] for k in ("2.weight", "2.bias")
        }
        module = network().double()
        module.load_state_dict({**world, **own})
        rows, size = torch.as_tensor(partition.client(client)), partition.sizes(client)[0]
        x, y = loss.task.train["x"][rows].double(), loss.task.train["y"][rows]
        expected = [nn.functional.cross_entropy(module(x[size:]), y[size:]).item()]
        nn.functional.cross_entropy(module(x[:size]), y[:size]).backward()
        for p in module.parameters():
            p.data -= TUNE * p.grad
        expected.append(nn.functional.cross_entropy(module(x[size:]), y[size:]).item())
        assert [answer.metrics[k] for k in ("loss_before", "loss")] == pytest.approx(expected, rel=1e-9)
        assert answer.state == {} and answer.num_bytes == 0
    assert all(torch.equal(world[k], initial[k]) for k in ("2.weight", "2.bias"))  # the global head is never trained


def test_heads_of_their_own_score_more_and_cost_less_than_fedavg() -> None:
    rows = [trained(strategy, "loop")[0].rows[-1] for strategy in (FedAvg(), FedPer())]
    assert rows[1]["personal_accuracy_before"] > rows[0]["personal_accuracy_before"] + 0.15
    head = 4 * 8 * (8 * 4 + 4)  # four clients, weight and bias in float64
    for column in ("bytes_down", "bytes_up"):
        assert rows[0][column] - rows[1][column] == head


def test_evaluation_changes_no_state() -> None:
    with_it, without = States(), States()
    trained(FedPer(), "loop", callbacks=[with_it])
    loss, partition = opposed()
    app = make_app(loss, partition, {name_of(FedPer): FedPer})
    start, train = records.encode(loss.initial()), records.config(TRAINING)
    run_rounds(FedPer(), SimulationGrid(app, 4), start, 2, train_config=train, callbacks=[without])
    assert with_it.after == without.after


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("none", "the result of own_model is None; it must be tensors by name"),
        ("lacks", "own_model gives no 2.bias, or of another shape or dtype; it must give all leaves"),
    ],
)
def test_an_own_model_that_is_none_is_that_clients_failure(how: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        trained(Halved(how), "loop")


def test_an_own_model_needs_no_leaf_at_home() -> None:
    result, _ = trained(Halved(), "vmap")
    loss, partition = opposed()
    half = tree.scale(records.decode(result.arrays), 0.5)
    losses = []
    for client in range(4):
        rows, size = torch.as_tensor(partition.client(client)), partition.sizes(client)[0]
        held = {k: v[rows[size:]] for k, v in loss.task.train.items()}
        losses.append(float(loss.metrics(half, Batch(held, rng.words(0)))["loss"]))
    assert result.rows[-1]["personal_loss_before"] == pytest.approx(np.mean(losses), rel=1e-9)


def test_a_message_without_a_name_is_evaluated_as_before() -> None:
    settings = {"personalize.steps": 2, "personalize.lr": 0.1}
    assert type(rule_for("evaluate", settings)) is Personalize
    own = rule_for("evaluate", {**settings, "strategy": "ditto", "strategy.lam": 0.3})
    assert isinstance(own, PersonalizeOwn) and own.rule.lam == 0.3 and own.steps == 2  # type: ignore[attr-defined]
    assert replace(own, steps=3).rule is own.rule


def test_the_example_of_the_document_is_the_strategy_of_these_tests() -> None:
    assert inspect.getsource(FedPer) in (Path(HOME) / "docs" / "your-own.md").read_text()
