"""Many clients' dense networks trained by batched products written out by hand: the floor of ``bench.sweep``. No paper.

No autograd, no vmap, no rounds, no logs: what PyTorch's kernels take for the arithmetic of fifteen runs, on samples drawn by key.

Legend: C clients, B batch, I inputs, O outputs.
"""

import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.kernels import allocator

SIZES = {"lr": (784, 10), "2nn": (784, 200, 200, 10)}
"""Of the models that it knows: inputs, hidden layers, classes."""
ROOM = 32 * 2**20
"""So many bytes of weights at once: more falls out of the cache from step to step, fewer costs more calls."""


def step(weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor, y: Tensor, lr: float) -> None:
    """One step of SGD, in place, on softmax cross-entropy with ReLU between layers.

    ``weights`` (C, O, I) and ``biases`` (C, 1, O) of each layer; x (C, B, I), y (C, B) classes.
    """
    inputs = [x]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(torch.baddbmm(bias, inputs[-1], weight.mT).relu_())
    outputs = torch.baddbmm(biases[-1], inputs[-1], weights[-1].mT).flatten(0, 1)
    error = (
        outputs.t().softmax(0).t().reshape(*y.shape, -1)
    )  # dL/dlogits is softmax - one-hot; class by class: see task.cross_entropy
    error.scatter_add_(-1, y[..., None], error.new_tensor(-1.0).expand(*y.shape, 1)).mul_(-lr / y.shape[1])
    for layer in reversed(range(len(weights))):
        below = torch.bmm(error, weights[layer]).mul_(inputs[layer] > 0) if layer else error
        weights[layer].baddbmm_(error.mT, inputs[layer])
        biases[layer].add_(error.sum(1, keepdim=True))
        error = below


def seconds(model: str, clients: int, rounds: int, steps: int = 60, batch: int = 10, samples: int = 60_000) -> float:
    """For ``rounds`` of ``steps`` of all ``clients``, each round from one model. One thread."""
    allocator.keep_large_buffers()
    torch.set_num_threads(1)
    sizes = SIZES[model]
    draws = [rng.words(rng.key(0, "by-hand", number)) for number in range(len(sizes))]
    x, y = rng.uniform(draws[0], (samples, sizes[0])), torch.arange(samples) % sizes[-1]
    one = [
        ((rng.uniform(words, (wide, narrow)) - 0.5) * narrow**-0.5, torch.zeros(1, wide))
        for words, (narrow, wide) in zip(draws[1:], pairwise(sizes), strict=True)
    ]
    most = max(ROOM // sum(4 * (weight.numel() + bias.numel()) for weight, bias in one), 1)
    order = torch.from_numpy(rng.permutation(rng.key(0, "by-hand"), samples)).repeat(
        2 + min(clients, most) * batch // samples
    )
    start = time.perf_counter()
    for _ in range(rounds):
        for first in range(0, clients, most):
            here = min(most, clients - first)
            weights, biases = ([part.repeat(here, 1, 1) for part in parts] for parts in zip(*one, strict=True))
            for number in range(steps):
                rows = order.narrow(0, number * here * batch % samples, here * batch)
                step(
                    weights,
                    biases,
                    x.index_select(0, rows).view(here, batch, -1),
                    y.index_select(0, rows).view(here, batch),
                    0.03,
                )
    return time.perf_counter() - start
