"""ClientApps for Flower's simulation: as in its PyTorch quickstart, with care, and one that does nothing. No paper.

Each trains the client that the message names, not the partition of the node that got it: so the rounds are the same work
as everyone's, though Flower samples its nodes as it likes.
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, ToTensor

from experiments.bench.children.protocol import Facts
from experiments.bench.workloads.shared_inputs import World

Work = Callable[[Message], RecordDict]


def app(job: Facts, name: str) -> ClientApp:
    """The app called idiomatic, careful or nothing."""
    made, text, do = ClientApp(), json.dumps(job), APPS[name]

    @made.train()
    def train(message: Message, context: Context) -> Message:
        return Message(do(text, message), reply_to=message)

    @made.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return made


def reply(model: dict[str, Any], examples: int) -> RecordDict:
    """What Flower's FedAvg wants."""
    return RecordDict({"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": examples})})


def asked(message: Message) -> tuple[int, int]:
    """(client, round) that the message names."""
    config = message.content["config"]
    assert isinstance(config, ConfigRecord)
    return int(str(config["client"])), int(str(config["server-round"]))


def sent(message: Message) -> dict[str, torch.Tensor]:
    """The global model."""
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return dict(arrays.to_torch_state_dict())


@functools.cache
def world(text: str) -> World:
    """Read once an actor, as the quickstart keeps its ``FederatedDataset`` in a global."""
    return World(json.loads(text))


class Pictures(Dataset[Any]):
    """A client's samples, transformed one by one."""

    def __init__(self, data: World, client: int) -> None:
        self.data, self.rows = data, data.rows(client).tolist()
        mean, std = (value.flatten().tolist() for value in (data.mean, data.std))
        self.transform = Compose([ToTensor(), Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows[index]
        return self.transform(self.data.x[row].permute(1, 2, 0).numpy()), int(self.data.y[row])


def idiomatic(text: str, message: Message) -> RecordDict:
    """A new model, a DataLoader, torch.optim.SGD, ``ArrayRecord(model.state_dict())``."""
    data = world(text)
    client, _ = asked(message)
    model = data.new_module()
    model.load_state_dict(sent(message))
    loader = DataLoader(Pictures(data, client), batch_size=data.work["batch"], shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=data.work["lr"])
    criterion = nn.CrossEntropyLoss()
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        torch.autograd.backward(criterion(model(x), y))
        optimizer.step()
    return reply(model.state_dict(), data.size(client))


@functools.cache
def kept(text: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """One model and optimiser an actor."""
    torch.set_num_threads(1)
    model = world(text).new_module().train()
    return model, torch.optim.SGD(model.parameters(), lr=world(text).work["lr"], fused=True)


def careful(text: str, message: Message) -> RecordDict:
    """Data and model kept in the actor, batches sliced from tensors, one thread."""
    data = world(text)
    model, optimizer = kept(text)
    client, server_round = asked(message)
    model.load_state_dict(sent(message))
    x, y = data.client(client)
    for rows in data.orders(server_round, client):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x[rows]), y[rows]))
        optimizer.step()
    return reply(model.state_dict(), data.size(client))


def nothing(text: str, message: Message) -> RecordDict:
    """The model as it came."""
    return RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})


APPS: dict[str, Callable[[str, Message], RecordDict]] = {"idiomatic": idiomatic, "careful": careful, "nothing": nothing}
