"""System ``bare``: a plain PyTorch loop over the clients of a round, in one process with PyTorch's default threads."""

import copy

import torch
import torch.nn.functional as F

from experiments.bench.children.protocol import Facts, ParentConnection, serve
from experiments.bench.children.round_loop import drive
from experiments.bench.workloads.shared_inputs import SharedInputs


class Bare:
    """A run in the usual PyTorch style: ``copy.deepcopy``, ``torch.optim.SGD``, a weighted sum of state dicts."""

    def __init__(self, inputs: SharedInputs) -> None:
        self.inputs, self.module = inputs, inputs.initial_module()

    def round(self, number: int) -> Facts:
        """Train the clients of one round, one after another, and average them."""
        total: dict[str, torch.Tensor] = {}
        cohort = self.inputs.cohorts[number]
        examples = 0
        for c in cohort:
            net = copy.deepcopy(self.module).train()
            optimizer = torch.optim.SGD(net.parameters(), lr=self.inputs.work["lr"])
            x, y = self.inputs.client(c)
            for rows in self.inputs.batches(number, c):
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(net(x[rows]), y[rows]))
                optimizer.step()
            examples += len(y)
            for name, value in net.state_dict().items():
                total[name] = total[name] + len(y) * value if name in total else len(y) * value
        self.module.load_state_dict({name: value / examples for name, value in total.items()})
        return {"updates": len(cohort), "examples": examples}

    def accuracy(self) -> float:
        """The accuracy of the global model on the test samples."""
        return self.inputs.accuracy(self.module)


def main(parent: ParentConnection) -> Facts:
    """Run the system for the parent."""
    return drive(parent, lambda: Bare(SharedInputs(parent.job)))


if __name__ == "__main__":
    serve(main)
