"""Noise: a malicious client trains as the others do and adds Gaussian noise to its update.

No paper: the usual control of work on robust aggregation. The noise is relative to the client's own update, so that a
number means the same for each network and rate.

    w_k' = w_k + std rms(w_k - w) N(0, I),    rms(d) = sqrt(mean over all trained numbers of d^2)
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from fl_sim import rng
from fl_sim.blocks.attack import Attack
from fl_sim.learning.rule import Draw
from fl_sim.tree import Tree


@dataclass(frozen=True)
class Noise(Attack):
    """A malicious client adds Gaussian noise to each number of its update."""

    std: Annotated[float, Gt(0)] = 5.0
    """Standard deviation of the noise, in units of the root mean square of the client's own update."""

    def update(self, own: Tree, draw: Draw) -> Tree:
        """The client's update with noise, which depends on seed, round and client alone."""
        squares = torch.stack([x.double().square().sum() for x in own.values()])
        rms = (squares.sum() / sum(x.numel() for x in own.values())).sqrt()
        normal = rng.generator(draw("attack-noise")).standard_normal
        drawn = {k: torch.from_numpy(normal(tuple(x.shape))).to(x.device) for k, x in own.items()}
        return {k: x + (self.std * rms * drawn[k]).to(x.dtype) for k, x in own.items()}
