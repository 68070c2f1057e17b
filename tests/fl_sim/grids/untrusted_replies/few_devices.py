"""Four devices in this process, one of which may tamper with what it sends, and runs on them."""

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl_sim import RoundLog, run_rounds
from fl_sim.grids.deployed import DeployedGrid
from strategies.fedavg import FedAvg
from tests.conformance.in_process import InProcessGrid
from tests.fl_sim.grids.untrusted_replies.hostile import EXAMPLES, Tamper, honest

START = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "n": Array(np.zeros(2, np.int64))})
CULPRIT, CLIENTS = 2, 4
NODE = 1002


def devices(tamper: Tamper | None = None, introduction: dict[str, Any] | None = None) -> InProcessGrid:
    """Four devices; ``tamper`` changes the training replies of one, ``introduction`` its answer to the query."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        facts = {"partition-id": client, "examples": EXAMPLES, "held-out": 5, "python": "3", "kind": "a", "client": 9}
        facts |= introduction or {} if client == CULPRIT else {}
        return Message(
            RecordDict({"node": ConfigRecord({k: v for k, v in facts.items() if v is not None})}), reply_to=message
        )

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = honest(message.content)
        if tamper is not None and context.node_config["partition-id"] == CULPRIT:
            tamper(content)
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        numbers = {"num-examples": EXAMPLES, "steps": 1, "held_out": 5.0, "loss_before": 1.0, "loss": 0.5}
        facts = {"num-bytes": 0, "weight": float(EXAMPLES)}
        content = RecordDict({"metrics": MetricRecord(numbers), "facts": ConfigRecord(facts)})
        if tamper is not None and context.node_config["partition-id"] == CULPRIT:
            tamper(content)
        return Message(content, reply_to=message)

    return InProcessGrid(app, {1000 + c: c for c in range(CLIENTS)})


def rounds(
    grid: InProcessGrid, failures: str, log: RoundLog | None = None, strategy: Any = None, count: int = 1
) -> Any:
    allowed = 0 if failures == "raise" else CLIENTS - 1
    deployed = DeployedGrid(grid, CLIENTS, {}, allowed_missing=allowed, node_timeout_s=0.05, timeout_s=5, block_size=2)
    return run_rounds(strategy or FedAvg(), deployed, START, count, log=log, failures=failures)
