"""BatchNorm's running statistics under Flower's strategies: the clients' mean, whatever the server does with weights.

Expected values: ``tests.fl_sim.small_federation``, by plain PyTorch, (4 s_0 + 9 s_1) / 13.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import strategy as flower

from fl_sim import RoundLog, tree
from fl_sim.rounds.foreign_statistics import ForeignStatistics
from fl_sim.wire import flower as flower_wire
from fl_sim.wire import records
from tests.fl_sim import small_federation
from tests.fl_sim.small_federation import SIZES, STATISTICS, STILL, mean_statistics, network, own_statistics, train

ALL: dict[str, Any] = {"fraction_train": 1.0, "fraction_evaluate": 0.0}


def check(arrays: ArrayRecord) -> None:
    """The statistics of a model are those expected, and its counter is a whole number by its type too."""
    found = records.decode(arrays)
    assert list(found) == list(network().state_dict())
    for k, value in mean_statistics((4, 9)).items():
        torch.testing.assert_close(found[k], value, rtol=1e-12, atol=1e-15)
        assert found[k].dtype == value.dtype


def events(folder: Path) -> list[dict[str, Any]]:
    """The events of the only run in a folder."""
    [file] = folder.glob("*/events.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "strategy",
    [
        flower.FedAvg(**ALL),
        flower.FedAdam(**ALL),
        flower.FedYogi(**ALL),
        flower.FedAdagrad(**ALL),
        flower.FedAvgM(**ALL, server_momentum=0.9, server_learning_rate=0.5),
        flower.QFedAvg(client_learning_rate=0.1, train_loss_key="loss", **ALL),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_statistics_are_the_clients_mean(strategy: Any, tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", "") as log:
        check(train(strategy, SIZES, STILL, log=log).arrays)
    told = [event for event in events(tmp_path) if event["event"] == "running_statistics"]
    assert len(told) == (type(strategy) is not flower.FedAvg)
    assert all(event["round"] == 1 and event["names"] == sorted(STATISTICS) for event in told)


@pytest.mark.parametrize("kind", [flower.FedAdam, flower.FedAvg])
def test_weights_are_those_that_flower_computes(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, BatchNorm does not read running statistics: the weights of three rounds are the same bits."""
    settings = {**STILL, "local.lr": 0.1}
    ours = records.decode(train(kind(**ALL), SIZES, settings, rounds=3).arrays)
    monkeypatch.setattr(small_federation.SimulationGrid, "statistics", property(lambda grid: (), lambda grid, x: None))
    theirs = records.decode(train(kind(**ALL), SIZES, settings, rounds=3).arrays)
    weights = [k for k in ours if k not in STATISTICS]
    assert tree.digest({k: ours[k] for k in weights}) == tree.digest({k: theirs[k] for k in weights})
    assert ours["1.running_var"].min() > 0 and ours["1.num_batches_tracked"].dtype == torch.int64
    assert theirs["1.num_batches_tracked"].dtype == torch.float64  # what Flower makes of a counter
    if kind is flower.FedAvg:  # a mean of statistics as it is
        assert all(torch.equal(ours[k], theirs[k]) for k in STATISTICS[:2])


def test_a_median_of_statistics_stays_as_it_is() -> None:
    """Of two clients the median is the middle between them; of the counters 1 and 2 it is 1.5, which rounds to 2."""
    found = records.decode(train(flower.FedMedian(**ALL), SIZES, STILL).arrays)
    first, second = own_statistics(0), own_statistics(1)
    for k in STATISTICS[:2]:
        torch.testing.assert_close(found[k], (first[k] + second[k]) / 2, rtol=1e-12, atol=0)
    assert found["1.num_batches_tracked"].dtype == torch.int64 and int(found["1.num_batches_tracked"]) == 2


class Doubling(flower.FedAvg):
    """A strategy of a user's own: a step of two times the way to the mean, for all arrays."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, *rest: Any) -> Iterable[Message]:
        self.arrays = arrays
        return super().configure_train(server_round, arrays, *rest)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        mean, metrics = super().aggregate_train(server_round, replies)
        assert mean is not None
        old = {k: v.numpy() for k, v in self.arrays.items()}
        return ArrayRecord({k: Array(np.asarray(2 * v.numpy() - old[k])) for k, v in mean.items()}), metrics


def test_a_step_past_all_clients_is_replaced_by_the_mean_and_recorded(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", "") as log:
        check(train(Doubling(**ALL), SIZES, STILL, log=log).arrays)
    [told] = [event for event in events(tmp_path) if event["event"] == "running_statistics"]
    assert told["reason"].startswith("outside of all clients' values") and told["names"] == sorted(STATISTICS)


def test_a_private_strategys_statistics_keep_their_noise_but_no_negative_variance(tmp_path: Path) -> None:
    private = flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(**ALL), 2.0, 1000.0, 2)
    with RoundLog.create(tmp_path, "run", "") as log:
        found = records.decode(train(private, SIZES, STILL, log=log, seed=1).arrays)
    mean = mean_statistics((4, 9))
    assert (found["1.running_mean"] - mean["1.running_mean"]).abs().min() > 1  # noise of standard deviation 1000
    assert found["1.running_var"].min() == 0 < found["1.running_var"].max()
    assert found["1.num_batches_tracked"].dtype == torch.int64
    [told] = [event for event in events(tmp_path) if event["event"] == "running_statistics"]
    assert "differential privacy" in told["reason"]


def test_a_constant_of_the_network_gets_no_noise() -> None:
    """A buffer that all clients return as it was at the start, such as a mask."""
    private = flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(**ALL), 2.0, 1000.0, 2)
    told: list[Any] = []
    statistics = ForeignStatistics(["mask", "mean"], private, lambda kind, **facts: told.append(facts["names"]))
    start = {"mask": torch.ones(2), "mean": torch.zeros(2)}
    sent = [records.encode({"mask": torch.ones(2), "mean": torch.full((2,), float(i))}) for i in range(2)]
    message = Message(RecordDict(), 1, "train")
    flower_wire.set_message_id(message, "1")
    statistics.take([Message(RecordDict({"arrays": arrays}), reply_to=message) for arrays in sent])
    noisy = {"mask": torch.tensor([1.5, 0.5]), "mean": torch.tensor([7.0, -7.0])}
    settled = records.decode(statistics.settled(records.encode(noisy), start))
    assert torch.equal(settled["mask"], start["mask"]) and torch.equal(settled["mean"], noisy["mean"])
    assert told == [["mean"]]


def test_what_an_older_checkpoint_kept_of_statistics_is_left_out() -> None:
    adam, momentum = flower.FedAdam(**ALL), flower.FedAvgM(**ALL, server_momentum=0.5)
    order = ["w", "s", "b"]
    adam.m_t = dict.fromkeys(order, np.zeros(1))
    momentum.momentum_vector = [np.full(1, float(i)) for i in range(3)]
    for strategy in (adam, momentum):
        ForeignStatistics(["s"], strategy, print).restored(order, None)
        ForeignStatistics(["s"], strategy, print).restored(order, None)  # again: nothing is left to remove
    assert list(adam.m_t) == ["w", "b"] and [float(x) for [x] in momentum.momentum_vector] == [0.0, 2.0]


def test_a_run_that_continues_tells_nothing_twice(tmp_path: Path) -> None:
    told: list[object] = []
    with RoundLog.create(tmp_path, "run", "") as log:
        for _ in range(2):
            statistics = ForeignStatistics(["s"], flower.FedAvg(**ALL), lambda kind, **facts: told.append(facts))
            statistics.restored(["s"], log)
            statistics._tell("why", ["s"])
            log.event("running_statistics", reason="why", names=["s"])
    assert told == [{"reason": "why", "names": ["s"]}]
