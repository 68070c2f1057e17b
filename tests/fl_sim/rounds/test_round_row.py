"""The bytes of a round by hand: who was sent the model, and whose model came back."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from torch import nn

from clients.app import make_app
from fl_sim import Callback, Partition, Run, SimulationGrid, from_arrays, run_rounds
from fl_sim.engines.results import BlockResult
from fl_sim.grids.no_answer import NODE_UNAVAILABLE
from fl_sim.learning.loss import Loss
from fl_sim.wire import records
from strategies.base.strategy import Strategy
from strategies.fedavg import FedAvg
from strategies.fedprox import FedProx

MODEL = (2 * 2 + 2) * 8
"""Bytes: a 2 x 2 matrix and 2 biases, of 8 bytes each."""
CLIENTS = 5


def one_round(strategy: Strategy, grid: type[SimulationGrid] = SimulationGrid, **options: Any) -> dict[str, Any]:
    """The row of a round of 5 clients, 2 of them stragglers."""
    x, y = np.arange(4.0 * CLIENTS).reshape(-1, 2), np.arange(2 * CLIENTS) % 2
    loss = Loss(nn.Linear(2, 2), from_arrays(x, y, x_test=x, y_test=y), torch.float64)
    app = make_app(loss, Partition.of(np.split(np.arange(len(y)), CLIENTS)))
    settings = records.config({"local.lr": 0.1, "local.epochs": 2, "system.stragglers": 0.4})
    start = records.encode(loss.initial())
    return run_rounds(strategy, grid(app, CLIENTS), start, 1, train_config=settings, **options).rows[1]


class Failing(Callback):
    """The first client of the round fails."""

    def on_block(self, run: Run, result: BlockResult) -> None:
        result.clients[0].reason = "unplugged"


class Unconnected(SimulationGrid):
    """The first message finds no node."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Iterator[Message]:
        first, *others = messages
        self._number(first)
        error = Message(Error(NODE_UNAVAILABLE, "its node is not connected"), reply_to=first)
        return chain([error], super().send_and_receive(others, timeout=timeout))


def counts(row: dict[str, Any]) -> dict[str, int]:
    return {k: row[k] for k in ("clients", "completed", "failed", "dropped")}


def test_a_dropped_straggler_was_sent_the_model() -> None:
    row = one_round(FedAvg())
    assert counts(row) == {"clients": 5, "completed": 3, "failed": 0, "dropped": 2}
    assert (row["bytes_down"], row["bytes_up"]) == (5 * MODEL, 3 * MODEL)


def test_a_straggler_whose_work_is_kept_counts_once() -> None:
    row = one_round(FedProx(mu=0.1))
    assert counts(row) == {"clients": 5, "completed": 5, "failed": 0, "dropped": 0}
    assert (row["bytes_down"], row["bytes_up"]) == (5 * MODEL, 5 * MODEL)


def test_a_client_that_fails_was_sent_the_model_and_its_reply_is_not_used() -> None:
    row = one_round(FedAvg(), callbacks=[Failing()], failures="tolerate:0.5")
    assert counts(row) == {"clients": 5, "completed": 2, "failed": 1, "dropped": 2}
    assert (row["bytes_down"], row["bytes_up"]) == (5 * MODEL, 2 * MODEL)


def test_a_client_that_is_not_connected_is_sent_nothing() -> None:
    row = one_round(FedAvg(), Unconnected, failures="tolerate:0.5")
    assert counts(row) == {"clients": 5, "completed": 2, "failed": 1, "dropped": 2}
    assert (row["bytes_down"], row["bytes_up"]) == (4 * MODEL, 2 * MODEL)


@pytest.mark.parametrize("strategy", [FedAvg(), FedProx(mu=0.1)])
def test_every_chosen_client_has_one_outcome(strategy: Strategy) -> None:
    row = one_round(strategy, callbacks=[Failing()], failures="tolerate:0.5")
    assert row["clients"] == row["completed"] + row["failed"] + row["dropped"]
