"""Slowness by Zipf's law: many fast devices, and few that are many times slower.

N. Su and B. Li, "How Asynchronous can Federated Learning Be?", IWQoS 2022: the clients of Plato wait for times that
follow this law.

    P(slowness = k) ~ k^-a,  k = 1 .. most
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from fl_sim.population.devices import Draw, Drawn, thirds, uniform
from fl_sim.registry import offer


@offer("profile")
def zipf(a: Annotated[float, Gt(0)] = 1.7, most: Annotated[int, Ge(1)] = 60) -> Draw:
    """Slowness 1, 2, .. ``most`` with probabilities as k^-``a``."""
    weights = np.arange(1, most + 1, dtype=np.float64) ** -a
    ends = np.cumsum(weights / weights.sum())

    def draw(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        u = uniform(device, "slowness")
        return Drawn(np.minimum(np.searchsorted(ends, u, side="right"), most - 1) + 1.0, thirds(u))

    return draw
