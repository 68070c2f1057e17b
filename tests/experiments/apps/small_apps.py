"""Texts of small Flower apps: a server and clients to which tests add a few lines."""

from collections.abc import Callable
from typing import Any

from fl_sim.logs.reader import RunLog

PYPROJECT = """
[project]
name = "{name}"
version = "1"
[tool.flwr.app.components]
serverapp = "{name}_s:app"
clientapp = "{name}_c:app"
[tool.flwr.app.config]
lr = 0.1
num-server-rounds = 2
"""
SERVER = """
import threading, time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
def messages(grid, kind="train"):
    return [Message(RecordDict({"arrays": ArrayRecord([np.zeros(2)])}), node, kind) for node in grid.get_node_ids()]
def averaging(**more):
    return FedAvg(**{"fraction_evaluate": 0.0, **more})
def said(*words):
    open("said.txt", "w").write(repr(words))
"""
CLIENT = """
import time
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    n = context.node_config["partition-id"]
    new = ArrayRecord([x + n + 1 for x in message.content["arrays"].to_numpy_ndarrays()])
    return Message(RecordDict({"arrays": new, "metrics": MetricRecord({"num-examples": n + 1})}), reply_to=message)
@app.evaluate()
def evaluate(message, context):
    n = context.node_config["partition-id"]
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 2, "loss": 1.0})}), reply_to=message)
"""
Try = Callable[..., tuple[int, dict[str, Any], RunLog, str]]
"""The type of the fixture ``attempt``."""


def exchanging(body: str) -> str:
    """A server that talks to clients itself."""
    return "@app.main()\ndef main(grid, context):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def events(log: RunLog) -> list[str]:
    return log.events["event"].tolist()[1:]


SEND = "replies = list(grid.send_and_receive(messages(grid)))\n"
LEGACY = """
import numpy as np
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
class Half(NumPyClient):
    def __init__(self, n): self.n = n
    def get_parameters(self, config): return [np.random.normal(size=2)]
    def fit(self, parameters, config):
        assert self.n != BAD
        return [p / 2 + self.n for p in parameters], self.n + 1, {}
    def evaluate(self, parameters, config): return float(parameters[0].sum()), 3, {}
app = ClientApp(client_fn=lambda context: Half(context.node_config["partition-id"]).to_client())
"""
COMPONENTS = """
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp
def server_fn(context):
    rounds = context.run_config["num-server-rounds"]
    return ServerAppComponents(strategy=FedAvg(min_available_clients=2), config=ServerConfig(num_rounds=rounds))
app = ServerApp(server_fn=server_fn)
"""
WORKFLOW = """
import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    strategy = FedAvg(initial_parameters=ndarrays_to_parameters([np.ones(2)]), min_available_clients=2)
    DefaultWorkflow()(grid, LegacyContext(context=context, config=ServerConfig(num_rounds=2), strategy=strategy))
"""
