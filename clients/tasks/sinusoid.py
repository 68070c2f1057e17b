"""Regression on synthetic sine waves: each client has an amplitude and a phase of its own.

C. Finn, P. Abbeel, S. Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks" (MAML), ICML 2017,
section 5.1, arXiv:1703.03400; inputs on a grid as in A. Nichol, J. Achiam, J. Schulman, "On First-Order
Meta-Learning Algorithms" (Reptile), 2018, section 2, arXiv:1803.02999.

y = a sin(x + p), a ~ U(0.1, 5), p ~ U(0, 2 pi), x on an even grid of [-5, 5].

Legend: C clients, S samples per client, N = C S.
"""

import numpy as np
import torch

from fl_sim import rng
from fl_sim.learning.measures import squared_error
from fl_sim.learning.task import Task
from fl_sim.registry import offer
from fl_sim.tree import Tree

TEST_CLIENTS = 100
"""Number of waves in the central test set; they belong to no training client."""


@offer("task", default_model="sine-mlp")
def sinusoid(clients: int = 1000, samples: int = 50, seed: int = 0) -> Task:
    """One wave of ``samples`` points for each of ``clients`` natural clients: x, y (N, 1) float32.

    The central test set are 100 further waves. A client's wave does not depend on the number of clients. Raises
    ValueError for numbers below 1, and for a seed outside 0..2^63 - 1.
    """
    for name, value in [("clients", clients), ("samples", samples)]:
        if value < 1:
            raise ValueError(f"task.{name} = {value}: must be at least 1")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"task.seed = {seed}: must lie in 0..2^63 - 1")
    return Task(
        name="sinusoid",
        train=_waves(rng.key(seed, "sinusoid"), clients, samples),
        test=_waves(rng.key(seed, "sinusoid-test"), TEST_CLIENTS, samples),
        outputs=1,
        loss=squared_error,
        clients=np.repeat(np.arange(clients), samples),
    )


def _waves(key: int, clients: int, samples: int) -> Tree:
    """x and y of all clients' waves, one client after the other, drawn by ``key``."""
    drawn = rng.generator(key).uniform((0.1, 0.0), (5.0, 2 * np.pi), (clients, 2))
    x = np.broadcast_to(np.linspace(-5, 5, samples), (clients, samples))
    y = drawn[:, :1] * np.sin(x + drawn[:, 1:])
    return {k: torch.from_numpy(v.reshape(-1, 1).astype(np.float32)) for k, v in {"x": x, "y": y}.items()}
