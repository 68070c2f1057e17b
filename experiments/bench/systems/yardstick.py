"""What the machine can do: a plain fp32 matrix product on all cores; and how much arithmetic a sample of a work is. No paper."""

import time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.bench.children.protocol import Facts, Tokens, serve
from experiments.bench.workloads.shared_inputs import World

SIZE, REPEATS = 2048, 5


def gflops(a: torch.Tensor) -> float:
    """GFLOP/s of the best of a few products of (SIZE, SIZE) matrices."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds) / 1e9


def gflop_a_sample(world: World) -> float:
    """Multiplications and additions of one training sample, forward and backward, in 1e9."""
    x, y = world.client(0)
    counter = FlopCounterMode(display=False)
    with counter:
        torch.autograd.backward(F.cross_entropy(world.module()(x[:10]), y[:10]))
    return float(counter.get_total_flops()) / len(x[:10]) / 1e9


def main(tokens: Tokens) -> Facts:
    """One go is a few products."""
    torch.set_num_threads(tokens.job["cores"])
    cost = gflop_a_sample(World(tokens.job))
    a = torch.full((SIZE, SIZE), 0.5)
    gflops(a)
    best = 0.0
    while tokens.next(gflops=best, gflop_a_sample=cost):
        best = gflops(a)
    return {}


if __name__ == "__main__":
    serve(main)
