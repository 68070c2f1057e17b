"""Synchronous SGD by hand: the mean of a gradient of each worker; backup workers are not waited for."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from fl_sim import Batch, Local, Loss
from fl_sim.errors import ConfigError
from fl_sim.local import Metrics
from fl_sim.population.devices import Devices, Drawn
from fl_sim.tree import Tree
from strategies.syncsgd import SyncSGD
from tests.fl_sim.rounds.asynchronous.small_async_federation import CLIENTS, federation, model_of, run

ALL = {"local.batch_size": 0, "local.epochs": 1}
"""A gradient of all of a client's samples, so that no batch is drawn."""


def slow_by_id(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """A step takes 1, 2, 3 ... seconds, by client."""
    return Drawn(1.0 + clients, np.zeros(len(clients), np.int64))


SLOW = Devices(slow_by_id, 1)


def close(a: Tree, b: Tree) -> bool:
    """Whether two models are equal to 1e-12."""
    return max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-12


def descended(model: Tree, clients: Sequence[int], lr: float) -> Tree:
    """The model after a step down the mean gradient of some clients' samples, in plain PyTorch."""
    loss, partition = federation()
    layer = nn.Linear(3, 2, dtype=torch.float64)
    layer.load_state_dict(dict(model))
    for client in clients:
        rows = torch.from_numpy(partition.client(client))
        x, y = loss.task.train["x"][rows].double(), loss.task.train["y"][rows]
        (nn.functional.cross_entropy(layer(x), y) / len(clients)).backward()
    return {k: p.detach() - lr * p.grad for k, p in layer.named_parameters() if p.grad is not None}


def test_syncsgd_steps_down_the_mean_gradient_of_all_workers() -> None:
    result = run(SyncSGD(lr=0.4), 3, CLIENTS, settings={**ALL, "strategy": "syncsgd"}, devices=SLOW)
    model = federation()[0].initial()
    for _ in range(3):
        model = descended(model, range(CLIENTS), 0.4)
    assert close(model_of(result), model)
    assert [row["virtual_time"] for row in result.rows] == [0.0, 8.0, 16.0, 24.0]  # the slowest takes 8 s


class FailsOnce(SyncSGD):
    """Its first client to train fails."""

    trained = 0

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        FailsOnce.trained += 1
        if FailsOnce.trained == 1:
            raise ValueError("it fails once")
        return super().local_update(model, state, batches, loss, local)


def test_a_worker_whose_failure_is_tolerated_begins_again() -> None:
    """Client 0 (1 s) has failed, which is seen once the step reads all replies at 8 s: it ends at 9 s, as it should."""
    settings = {**ALL, "strategy": "fails_once"}
    result = run(FailsOnce(lr=0.4), 2, CLIENTS, settings=settings, devices=SLOW, failures="tolerate:0.2")
    model = federation()[0].initial()
    for _ in range(2):
        model = descended(model, range(CLIENTS), 0.4)
    assert close(model_of(result), model)
    assert [row["virtual_time"] for row in result.rows] == [0.0, 9.0, 17.0]
    assert [row["failed"] for row in result.rows[1:]] == [1, 0]


def test_backup_workers_are_not_waited_for_and_late_gradients_are_dropped() -> None:
    """8 workers of 1, 2, .. 8 s a gradient, 2 of them backups: a step ends with the sixth gradient at its model.

    Steps 1 and 2 end after 6 and 12 s. Clients 6 and 7 (7 and 8 s) are late by a step then, and begin anew at 7 and 8
    from the model of step 1; they are dropped at 14 and 16, where those of step 3, since 12, have only begun.
    """
    result = run(SyncSGD(lr=0.4, backup=2), 3, CLIENTS, settings={**ALL, "strategy": "syncsgd"}, devices=SLOW)
    model = federation()[0].initial()
    for _ in range(3):
        model = descended(model, range(6), 0.4)
    assert close(model_of(result), model)
    assert [row["virtual_time"] for row in result.rows] == [0.0, 6.0, 12.0, 18.0]
    assert [row["completed"] for row in result.rows[1:]] == [6, 6, 6]
    assert [row["dropped"] for row in result.rows[1:]] == [0, 2, 2]


def test_a_worker_begins_anew_after_a_late_gradient_and_waits_after_one_in_time() -> None:
    strategy = SyncSGD()
    assert list(strategy.released({0: 0, 1: 0, 2: 0}, {}, True)) == [0, 1, 2]
    assert list(strategy.released({0: 1}, {1: 0, 2: 0}, False)) == []  # in time
    assert list(strategy.released({0: 1, 1: 1}, {2: 0}, True)) == [0, 1]  # after the step
    assert list(strategy.released({2: 1}, {0: 1, 1: 1}, False)) == [2]  # late: from the present model
    assert list(strategy.released({2: 2, 0: 1}, {1: 1}, False)) == [0]  # 2 in time, 0 vanished and begins again


def test_backups_must_leave_a_worker() -> None:
    with pytest.raises(ConfigError, match=r"strategy.backup = 4: of 4 workers \(concurrency\) none is left; .* most 3"):
        run(SyncSGD(backup=4), 1, 4, settings={**ALL, "strategy": "syncsgd"})


def test_workers_that_vanish_begin_again() -> None:
    devices = Devices(slow_by_id, 1, vanish=0.4)
    result = run(SyncSGD(), 3, 4, settings={**ALL, "strategy": "syncsgd"}, devices=devices)
    assert [row["completed"] for row in result.rows[1:]] == [4, 4, 4]
    assert sum(row["dropped"] for row in result.rows[1:]) > 0
