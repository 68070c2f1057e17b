"""System ``bare-careful``: the plain PyTorch loop, optimised: one process per core, one thread each, no second copies.

The workers live as long as the run. They read the global model from shared memory, take client after client of the
round (largest first), train with channels-last convolutions and fused SGD whose gradients autograd hands over without a
copy, and add each result to a sum that lies in shared memory too. Dropout is PyTorch's own.
"""

from typing import Any

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench.children.protocol import Facts, ParentConnection, serve
from experiments.bench.children.round_loop import drive
from experiments.bench.workloads.shared_inputs import SharedInputs

Tree = dict[str, Tensor]


def worker(job: Facts, model: Tree, total: Tree, next_position: object, pipe: Any) -> None:
    """The main function of a worker process: trains clients of each round until the parent sends None.

    Parameters
    ----------
    job : the job of the benchmark, from which the worker reads its inputs.
    model : the global model in shared memory.
    total : receives the sum of this worker's client models, weighted by their numbers of samples, in shared memory.
    next_position : shared counter of the position in the round's list of clients that is trained next.
    pipe : receives the number of each round; the worker answers with the number of samples that it trained.
    """
    torch.set_num_threads(1)
    inputs = SharedInputs(job)
    images = inputs.x.ndim == 4 and inputs.work["model"] == "cnn"
    net = inputs.new_module().train()
    if images:
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=inputs.work["lr"], fused=True)
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        cohort = sorted(inputs.cohorts[number], key=inputs.size, reverse=True)
        examples = 0
        for value in total.values():
            value.zero_()
        while (position := take(next_position)) < len(cohort):
            c = cohort[position]
            train(inputs, net, optimizer, model, number, c)
            examples += inputs.size(c)
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    total[name].add_(value, alpha=inputs.size(c))
        pipe.send(examples)


def take(next_position: Any) -> int:
    """Take the next position of the round's list of clients."""
    with next_position.get_lock():
        position: int = next_position.value
        next_position.value += 1
    return position


def train(
    inputs: SharedInputs, net: nn.Module, optimizer: torch.optim.Optimizer, model: Tree, number: int, c: int
) -> None:
    """Train client ``c`` in round ``number``, starting from the global model; the result is in ``net``."""
    with torch.no_grad():
        for name, value in net.state_dict().items():
            value.copy_(model[name])
    x, y = inputs.client(c)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    for rows in inputs.batches(number, c):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(net(x[rows]), y[rows]))
        optimizer.step()


def shared(value: Tensor) -> Tensor:
    """Move a tensor into memory that all processes share."""
    moved: Tensor = value.share_memory_()  # type: ignore[no-untyped-call]
    return moved


class WorkerPool:
    """A run: the worker processes and the model that they share."""

    def __init__(self, job: Facts) -> None:
        context = mp.get_context("spawn")
        self.inputs = SharedInputs(job)
        self.module = self.inputs.initial_module()
        self.model = {name: shared(value.clone()) for name, value in self.module.state_dict().items()}
        self.totals, self.pipes = [], []
        self.next_position = context.Value("l", 0)
        for _ in range(job["cores"]):
            total = {name: shared(torch.zeros_like(value)) for name, value in self.model.items()}
            ours, theirs = context.Pipe()
            process = context.Process(
                target=worker, args=(job, self.model, total, self.next_position, theirs), daemon=True
            )
            process.start()
            self.totals.append(total)
            self.pipes.append(ours)
        for pipe in self.pipes:
            pipe.recv()

    def round(self, number: int) -> Facts:
        """Do one round: each worker trains clients until none is left, then the sums are averaged."""
        self.next_position.value = 0
        for pipe in self.pipes:
            pipe.send(number)
        examples = sum(pipe.recv() for pipe in self.pipes)
        for name, value in self.model.items():
            value.copy_(torch.stack([total[name] for total in self.totals]).sum(0) / examples)
        return {"updates": len(self.inputs.cohorts[number]), "examples": examples}

    def restart(self) -> "WorkerPool":
        """Begin another run: the global model gets its initial weights again."""
        for name, value in self.inputs.initial_module().state_dict().items():
            self.model[name].copy_(value)
        return self

    def accuracy(self) -> float:
        """The accuracy of the global model on the test samples."""
        self.module.load_state_dict(self.model)
        return self.inputs.accuracy(self.module)


def main(parent: ParentConnection) -> Facts:
    """Run the system for the parent. The workers start before it is ready, so whole runs do not include their start."""
    torch.set_num_threads(1)
    pool = WorkerPool(parent.job)
    return drive(parent, pool.restart)


if __name__ == "__main__":
    serve(main)
