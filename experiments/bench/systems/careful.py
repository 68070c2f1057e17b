"""The bare loop with care: one process a core with one thread each, and nothing copied twice. No paper.

The workers live as long as the run. They read the global model from shared memory, take client after client of the
round (largest first), train with channels-last convolutions and fused SGD whose gradients autograd hands over
without a copy, and add each result to a sum that lies in shared memory too. Dropout is PyTorch's own.
"""

from typing import Any

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.children.protocol import Facts, Tokens, serve
from experiments.bench.children.round_loop import drive
from experiments.bench.workloads.shared_inputs import World

Tree = dict[str, Tensor]


def worker(job: Facts, model: Tree, total: Tree, following: Any, pipe: Any) -> None:
    """One core's part of every round, until told None."""
    torch.set_num_threads(1)
    world = World(job)
    images = world.x.ndim == 4 and world.work["model"] == "cnn"
    net = world.new_module().train()
    if images:
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=world.work["lr"], fused=True)
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        cohort = sorted(world.cohorts[number], key=world.size, reverse=True)
        examples = 0
        for value in total.values():
            value.zero_()
        while (position := take(following)) < len(cohort):
            c = cohort[position]
            train(world, net, optimizer, model, number, c)
            examples += world.size(c)
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    total[name].add_(value, alpha=world.size(c))
        pipe.send(examples)


def take(following: Any) -> int:
    """The next position of the round's list."""
    with following.get_lock():
        position: int = following.value
        following.value += 1
    return position


def train(world: World, net: nn.Module, optimizer: torch.optim.Optimizer, model: Tree, number: int, c: int) -> None:
    """One client, from the global model."""
    with torch.no_grad():
        for name, value in net.state_dict().items():
            value.copy_(model[name])
    x, y = world.client(c)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    for rows in world.orders(number, c):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(net(x[rows]), y[rows]))
        optimizer.step()


def shared(value: Tensor) -> Tensor:
    """Moved to where all processes see it."""
    moved: Tensor = value.share_memory_()  # type: ignore[no-untyped-call]
    return moved


class Pool:
    """The workers, and the model that they share."""

    def __init__(self, job: Facts) -> None:
        context = mp.get_context("spawn")
        self.world = World(job)
        self.module = self.world.module()
        self.model = {name: shared(value.clone()) for name, value in self.module.state_dict().items()}
        self.totals, self.pipes = [], []
        self.following = context.Value("l", 0)
        for _ in range(job["cores"]):
            total = {name: shared(torch.zeros_like(value)) for name, value in self.model.items()}
            here, there = context.Pipe()
            process = context.Process(target=worker, args=(job, self.model, total, self.following, there), daemon=True)
            process.start()
            self.totals.append(total)
            self.pipes.append(here)
        for pipe in self.pipes:
            pipe.recv()

    def round(self, number: int) -> Facts:
        """One round of all workers."""
        self.following.value = 0
        for pipe in self.pipes:
            pipe.send(number)
        examples = sum(pipe.recv() for pipe in self.pipes)
        for name, value in self.model.items():
            value.copy_(torch.stack([total[name] for total in self.totals]).sum(0) / examples)
        return {"updates": len(self.world.cohorts[number]), "examples": examples}

    def restart(self) -> "Pool":
        """Back to the first weights."""
        for name, value in self.world.module().state_dict().items():
            self.model[name].copy_(value)
        return self

    def accuracy(self) -> float:
        """Of the global model."""
        self.module.load_state_dict(self.model)
        return self.world.accuracy(self.module)


def main(tokens: Tokens) -> Facts:
    """As told. The workers of a whole run are started with the imports."""
    torch.set_num_threads(1)
    pool = Pool(tokens.job)
    return drive(tokens, pool.restart)


if __name__ == "__main__":
    serve(main)
