"""ClientApps for Flower's simulation: as in Flower's PyTorch quickstart, an optimised one, and one that does nothing.

Each trains the client that the message names, not the partition of the node that received it. So every round trains the
same clients as in the other systems, although Flower samples its nodes at random.
"""

import functools
import json
from collections.abc import Callable

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, ToTensor

from experiments.bench.children.protocol import Facts
from experiments.bench.workloads.shared_inputs import SharedInputs

Train = Callable[[str, Message], RecordDict]
"""Trains the client that a message names: (job as JSON, message) -> content of the reply."""


def client_app(job: Facts, name: str) -> ClientApp:
    """The app of the given name: idiomatic, careful or nothing."""
    app, job_json, train_client = ClientApp(), json.dumps(job), APPS[name]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(train_client(job_json, message), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return app


def reply(model: dict[str, object], examples: int) -> RecordDict:
    """A reply in the form that Flower's FedAvg expects."""
    return RecordDict({"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": examples})})


def client_and_round(message: Message) -> tuple[int, int]:
    """(client, round) that a message names."""
    config = message.content["config"]
    assert isinstance(config, ConfigRecord)
    return int(str(config["client"])), int(str(config["server-round"]))


def global_model(message: Message) -> dict[str, torch.Tensor]:
    """The global model in a message."""
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return dict(arrays.to_torch_state_dict())


@functools.cache
def shared_inputs(job_json: str) -> SharedInputs:
    """The inputs of a job; read once in an actor, as the quickstart keeps its ``FederatedDataset`` in a global."""
    return SharedInputs(json.loads(job_json))


class ClientImages(Dataset[object]):
    """The samples of one client, each transformed when it is read."""

    def __init__(self, inputs: SharedInputs, client: int) -> None:
        self.inputs, self.rows = inputs, inputs.rows(client).tolist()
        mean, std = (value.flatten().tolist() for value in (inputs.mean, inputs.std))
        self.transform = Compose([ToTensor(), Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows[index]
        return self.transform(self.inputs.x[row].permute(1, 2, 0).numpy()), int(self.inputs.y[row])


def idiomatic(job_json: str, message: Message) -> RecordDict:
    """Train as the quickstart does: a new model, a DataLoader, torch.optim.SGD, ``ArrayRecord(model.state_dict())``."""
    inputs = shared_inputs(job_json)
    client, _ = client_and_round(message)
    model = inputs.new_module()
    model.load_state_dict(global_model(message))
    loader = DataLoader(ClientImages(inputs, client), batch_size=inputs.work["batch"], shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=inputs.work["lr"])
    criterion = nn.CrossEntropyLoss()
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        torch.autograd.backward(criterion(model(x), y))
        optimizer.step()
    return reply(model.state_dict(), inputs.size(client))


@functools.cache
def cached_model(job_json: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and the optimiser of an actor, built once."""
    torch.set_num_threads(1)
    model = shared_inputs(job_json).new_module().train()
    return model, torch.optim.SGD(model.parameters(), lr=shared_inputs(job_json).work["lr"], fused=True)


def careful(job_json: str, message: Message) -> RecordDict:
    """Train with data and model kept in the actor, batches sliced from tensors, and one thread."""
    inputs = shared_inputs(job_json)
    model, optimizer = cached_model(job_json)
    client, server_round = client_and_round(message)
    model.load_state_dict(global_model(message))
    x, y = inputs.client(client)
    for rows in inputs.batches(server_round, client):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x[rows]), y[rows]))
        optimizer.step()
    return reply(model.state_dict(), inputs.size(client))


def nothing(job_json: str, message: Message) -> RecordDict:
    """Return the model as it came."""
    return RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})


APPS: dict[str, Train] = {"idiomatic": idiomatic, "careful": careful, "nothing": nothing}
