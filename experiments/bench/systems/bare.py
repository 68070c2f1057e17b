"""A bare PyTorch loop over the clients of a round, as one writes it by hand: one process, PyTorch's own threads. No paper."""

import copy

import torch
import torch.nn.functional as F

from experiments.bench.children.protocol import Facts, Tokens, serve
from experiments.bench.children.round_loop import drive
from experiments.bench.workloads.shared_inputs import World


class Bare:
    """deepcopy, torch.optim.SGD, state dicts added up as they come."""

    def __init__(self, world: World) -> None:
        self.world, self.module = world, world.module()

    def round(self, number: int) -> Facts:
        """One client after another."""
        total: dict[str, torch.Tensor] = {}
        cohort = self.world.cohorts[number]
        examples = 0
        for c in cohort:
            net = copy.deepcopy(self.module).train()
            optimizer = torch.optim.SGD(net.parameters(), lr=self.world.work["lr"])
            x, y = self.world.client(c)
            for rows in self.world.orders(number, c):
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(net(x[rows]), y[rows]))
                optimizer.step()
            examples += len(y)
            for name, value in net.state_dict().items():
                total[name] = total[name] + len(y) * value if name in total else len(y) * value
        self.module.load_state_dict({name: value / examples for name, value in total.items()})
        return {"updates": len(cohort), "examples": examples}

    def accuracy(self) -> float:
        """Of the global model."""
        return self.world.accuracy(self.module)


def main(tokens: Tokens) -> Facts:
    """As told."""
    return drive(tokens, lambda: Bare(World(tokens.job)))


if __name__ == "__main__":
    serve(main)
