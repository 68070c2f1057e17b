"""What the machine can do: GFLOP/s of a float32 matrix product on all cores; and the cost of a training sample."""

import time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.bench.children.protocol import Facts, ParentConnection, serve
from experiments.bench.workloads.shared_inputs import SharedInputs

SIZE, REPEATS = 2048, 5
"""Rows and columns of the matrices; products in each measurement."""


def gflops(a: torch.Tensor) -> float:
    """GFLOP/s of the fastest of ``REPEATS`` products of ``a`` (SIZE, SIZE) with itself."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds) / 1e9


def gflop_a_sample(inputs: SharedInputs) -> float:
    """Floating-point operations of one training sample, forward and backward, in units of 1e9."""
    x, y = inputs.client(0)
    counter = FlopCounterMode(display=False)
    with counter:
        torch.autograd.backward(F.cross_entropy(inputs.initial_module()(x[:10]), y[:10]))
    return float(counter.get_total_flops()) / len(x[:10]) / 1e9


def main(parent: ParentConnection) -> Facts:
    """Run the matrix products for the parent: ``REPEATS`` of them for each request."""
    torch.set_num_threads(parent.job["cores"])
    cost = gflop_a_sample(SharedInputs(parent.job))
    a = torch.full((SIZE, SIZE), 0.5)
    gflops(a)
    best = 0.0
    while parent.next_requested(gflops=best, gflop_a_sample=cost):
        best = gflops(a)
    return {}


if __name__ == "__main__":
    serve(main)
