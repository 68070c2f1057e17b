"""All devices are equal: the slowness is 1."""

import numpy as np

from fl_sim.population.devices import Draw, Drawn
from fl_sim.registry import offer


@offer("profile", classes=1)
def equal() -> Draw:
    """Equal devices: virtual time counts steps (and bytes, where bandwidths are given)."""

    def draw(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        return Drawn(np.ones(len(clients)), np.zeros(len(clients), np.int64))

    return draw
