"""Messages that a strategy of Flower's sends by itself, and waiting for nodes: counted, and errors where they fail."""

from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAvg,
)

from fl_sim import RoundFailed, SimulationGrid, run_rounds
from fl_sim.grids import node_polls


class Querying(FedAvg):
    """A strategy that sends a query to all clients before it chooses among them."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
        self.answers = len(list(replies))
        return super().configure_train(server_round, arrays, config, grid)


def queried(fails: int) -> ClientApp:
    """An app whose client ``fails`` raises when it is queried."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == fails:
            raise RuntimeError("no answer")
        return Message(RecordDict(), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    return app


def test_a_query_of_the_strategys_own_is_checked_and_counted_too() -> None:
    start = ArrayRecord([np.zeros(2, np.float32)])
    strategy = Querying(fraction_evaluate=0.0)
    run_rounds(strategy, SimulationGrid(queried(-1), 5), start, 1)
    assert strategy.answers == 5
    with pytest.raises(RoundFailed, match=r"(?s)round 1, client 3, query.*no answer"):
        run_rounds(strategy, SimulationGrid(queried(3), 5), start, 1)
    run_rounds(strategy, SimulationGrid(queried(3), 5), start, 1, failures="tolerate:0.2")
    assert strategy.answers == 4


def test_waiting_for_nodes_that_never_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_polls, "WAIT_S", 0.5)
    monkeypatch.setattr(node_polls, "POLLS", 3)
    with pytest.raises(RoundFailed, match=r"more nodes than the 3 there are.*--clients"):
        run_rounds(FedAvg(min_available_nodes=4), SimulationGrid(queried(-1), 3), ArrayRecord([np.zeros(2)]), 1)
