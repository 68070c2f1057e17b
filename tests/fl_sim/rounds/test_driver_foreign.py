"""Flower's own strategies through ``run_rounds``: reproducible, with one reply for each client, and equal to ours."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    Krum,
)

from clients.app import make_app
from experiments import run
from experiments.check.world import SIZES, TRAINING, UNSEEN, app_of, trained, world
from experiments.config.recipe_files import make
from experiments.runs.foreign_strategy import shared
from fl_sim import Partition, SimulationGrid, load, run_rounds, tree
from fl_sim.learning.loss import Loss
from fl_sim.wire import records
from strategies import fedavg
from tests.fl_sim.rounds.global_generators import draw_from_all

SOME = {"fraction_train": 0.5, "fraction_evaluate": 0.0, "min_train_nodes": 4}
ALL = {"fraction_train": 1.0, "fraction_evaluate": 0.0}
STRATEGIES: dict[str, Any] = {
    "fedavg": lambda: FedAvg(**SOME),
    "fedavgm": lambda: FedAvgM(**SOME, server_momentum=0.9, server_learning_rate=0.5),
    "fedadam": lambda: FedAdam(**SOME),
    "krum": lambda: Krum(**SOME, num_malicious_nodes=1),
    "fedmedian": lambda: FedMedian(**SOME),
    "fedtrimmedavg": lambda: FedTrimmedAvg(**SOME, beta=0.3),
}


class Meddling(SimulationGrid):
    """A grid that draws from the global generators at each exchange, as other code in the process may."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        draw_from_all()
        return super().send_and_receive(messages, timeout=timeout)


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_trains_on_blocks_and_reproducibly(name: str) -> None:
    first = trained(STRATEGIES[name](), engine="vmap")
    random.seed(7)
    again = trained(STRATEGIES[name](), engine="vmap", grid=Meddling)
    start = world()[0].initial()
    assert tree.digest(first.model) == tree.digest(again.model) != tree.digest(start)
    assert [row["completed"] for row in first.result.rows[1:]] == [4, 4, 4]
    for k, value in trained(STRATEGIES[name](), engine="loop").model.items():
        torch.testing.assert_close(value, first.model[k], rtol=1e-9, atol=1e-11)


def test_another_seed_trains_other_clients() -> None:
    def chosen(seed: int) -> list[list[int]]:
        class Recorded(FedAvg):
            def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
                replies = list(replies)
                rounds.append(sorted(reply.metadata.src_node_id for reply in replies))
                return super().aggregate_train(server_round, replies)

        rounds: list[list[int]] = []
        grid = SimulationGrid(app_of(fedavg.FedAvg()), len(SIZES), seed=seed)
        run_rounds(
            Recorded(**SOME),
            grid,
            records.encode(world()[0].initial()),
            3,
            train_config=records.config(TRAINING),
            seed=seed,
        )
        return rounds

    assert chosen(0) == chosen(0) != chosen(1)


def test_fedavg_of_flower_is_ours_when_the_same_clients_train() -> None:
    ours = fedavg.FedAvg()
    theirs = trained(FedAvg(**ALL), engine="loop").model
    grid = SimulationGrid(app_of(ours), len(SIZES), holdout_clients=UNSEEN)
    settings = records.config({**TRAINING, "system.stragglers": 0.0})  # Flower's FedAvg knows none
    result = run_rounds(ours, grid, records.encode(world()[0].initial()), 3, train_config=settings)
    for name, value in records.decode(result.arrays).items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-12)


def test_integer_counters_and_widened_types_come_back_to_clients_as_they_were() -> None:
    """BatchNorm's counter stays a whole number in the model; FedAdam widens float32: no client fails of it."""
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    loss = Loss(module, world()[0].task, torch.float32)
    app = make_app(loss, Partition.of(np.split(np.arange(30), 3)))
    for strategy in (FedAvg(**ALL), FedAdam(**ALL)):
        grid = SimulationGrid(app, 3)
        settings = records.config({"local.lr": 0.05, "local.batch_size": 5, "rounds": 3})
        result = run_rounds(strategy, grid, records.encode(loss.initial()), 3, train_config=settings)
        types = {k: v.dtype for k, v in records.decode(result.arrays).items()}
        assert types["1.num_batches_tracked"] == torch.int64 and result.rows[-1]["completed"] == 3
        assert types["0.weight"] == (torch.float32 if type(strategy) is FedAvg else torch.float64)
        received = loss.received(records.decode(result.arrays))
        assert {k: v.dtype for k, v in received.items()} == {k: v.dtype for k, v in loss.initial().items()}


def test_the_draws_of_a_client_depend_on_no_order() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        draws = [random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002
        return Message(RecordDict({"metrics": MetricRecord({"draws": draws})}), reply_to=message)

    def query(grid: SimulationGrid, nodes: Iterable[int], server_round: int) -> dict[int, Any]:
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in nodes])
        return {reply.metadata.src_node_id: reply.content["metrics"]["draws"] for reply in replies}

    one, two = SimulationGrid(app, 4), SimulationGrid(app, 4)
    first, second = query(one, [2, 3, 4, 5], 1), query(one, [2, 3], 2)
    assert (second, first) == (query(two, [3, 2], 2), query(two, [5], 1) | query(two, [4, 2, 3], 1))
    everything = [
        *map(tuple, first.values()),
        *map(tuple, second.values()),
        *map(tuple, query(one, [2, 2], 1).values()),
    ]
    assert len(set(everything)) == len(everything) == 7
    assert query(SimulationGrid(app, 4, seed=1), [2], 1) != {2: first[2]}


def test_the_command_line_runs_flowers_strategies(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "task": "synthetic",
        "partition": "iid",
        "rounds": 2,
        "clients": 7,
        "cohort": 3,
        "out": str(tmp_path),
    }
    ours = run.run(**settings)
    theirs = run.run(strategy="flwr.serverapp.strategy:FedAvg", **settings)
    assert [theirs.log.rounds["completed"].tolist()[1:], theirs.summary["status"]] == [[3, 3], "completed"]
    assert ours.log.rounds["loss"].notna().all() and theirs.log.rounds["loss"].notna().all()
    adam = [
        "--strategy",
        "flwr.serverapp.strategy:FedAdam",
        "--strategy.eta",
        "0.01",
        "--task",
        "synthetic",
        "--partition",
        "iid",
    ]
    assert run.main([*adam, "--rounds", "2", "--clients", "4", "--out", str(tmp_path / "adam"), "--quiet"]) == 0
    [folder] = (tmp_path / "adam").iterdir()
    assert load(folder).rounds["loss"].notna().all()


def test_personal_evaluation_works_for_flowers_strategies_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "task": "digits",
        "rounds": 1,
        "clients": 5,
        "out": str(tmp_path),
        "partition.held_out": 0.2,
    }
    result = run.run(strategy="flwr.serverapp.strategy:FedAvg", personalize_steps=2, **settings)
    assert result.summary["personal_accuracy"] is not None
    assert set(result.log.clients["phase"]) == {"train", "personal"}


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"cohort": 2, "strategy.fraction_train": 0.5}, "cohort = 2, strategy.fraction_train = 0.5"),
        ({"weighting": "uniform"}, "weighting = 'uniform'"),
        ({"system": {"stragglers": 0.5}}, "system.stragglers = 0.5"),
    ],
)
def test_settings_that_flowers_strategies_do_not_take_are_refused(
    settings: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        run.run(**{"strategy.name": "flwr.serverapp.strategy:FedAvg", "out": str(tmp_path), **settings})


def test_a_cohort_is_never_lost_in_rounding() -> None:
    """int(n * (cohort / n)) is below cohort for some n, such as 49 * (1 / 49) < 1; min_train_nodes holds it."""
    assert int(49 * (1 / 49)) == 0
    base = make(strategy="flwr.serverapp.strategy:FedAvg", clients=120)
    for n in range(1, 121):
        for cohort in range(1, n + 1):
            params = shared(replace(base, cohort=cohort), n, cohort)
            assert max(int(n * params["fraction_train"]), params["min_train_nodes"]) == cohort
