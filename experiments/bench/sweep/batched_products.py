"""Trains dense networks of many clients by batched matrix products: a lower bound for ``experiments.bench.sweep``.

Without autograd, vmap, rounds and logs it shows what PyTorch's kernels need for the arithmetic of fifteen runs. The
samples are random.

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
"""Numbers of inputs, hidden units and classes of each supported model."""
WEIGHT_BYTES = 32 * 2**20
"""Bytes of weights trained at once: more do not stay in the cache between steps, fewer need more calls."""


def step(weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor, y: Tensor, lr: float) -> None:
    """One step of SGD on softmax cross-entropy, with ReLU between layers; changes weights and biases in place.

    Parameters
    ----------
    weights, biases : of each layer (C, O, I) and (C, 1, O).
    x : inputs (C, B, I).
    y : classes (C, B).
    lr : learning rate.
    """
    inputs = [x]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(torch.baddbmm(bias, inputs[-1], weight.mT).relu_())
    outputs = torch.baddbmm(biases[-1], inputs[-1], weights[-1].mT).flatten(0, 1)
    # dL/dlogits is softmax - one-hot. Transposed for speed where classes are few: see fl_sim.learning.measures.
    error = outputs.t().softmax(0).t().reshape(*y.shape, -1)
    error.scatter_add_(-1, y[..., None], error.new_tensor(-1.0).expand(*y.shape, 1)).mul_(-lr / y.shape[1])
    for layer in reversed(range(len(weights))):
        below = torch.bmm(error, weights[layer]).mul_(inputs[layer] > 0) if layer else error
        weights[layer].baddbmm_(error.mT, inputs[layer])
        biases[layer].add_(error.sum(1, keepdim=True))
        error = below


def seconds(model: str, clients: int, rounds: int, steps: int = 60, batch: int = 10, samples: int = 60_000) -> float:
    """Seconds for ``rounds`` rounds in which all clients do ``steps`` steps from one common model, on one thread."""
    allocator.keep_large_buffers()
    torch.set_num_threads(1)
    sizes = SIZES[model]
    keys = [rng.words(rng.key(0, "by-hand", number)) for number in range(len(sizes))]
    x, y = rng.uniform(keys[0], (samples, sizes[0])), torch.arange(samples) % sizes[-1]
    initial = [
        ((rng.uniform(words, (wide, narrow)) - 0.5) * narrow**-0.5, torch.zeros(1, wide))
        for words, (narrow, wide) in zip(keys[1:], pairwise(sizes), strict=True)
    ]
    at_once = max(WEIGHT_BYTES // sum(4 * (weight.numel() + bias.numel()) for weight, bias in initial), 1)
    order = torch.from_numpy(rng.permutation(rng.key(0, "by-hand"), samples)).repeat(
        2 + min(clients, at_once) * batch // samples
    )
    start = time.perf_counter()
    for _ in range(rounds):
        for first in range(0, clients, at_once):
            here = min(at_once, clients - first)
            weights, biases = ([part.repeat(here, 1, 1) for part in parts] for parts in zip(*initial, strict=True))
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
