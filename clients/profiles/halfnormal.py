"""Half-normal slowness.

J. Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation" (FedBuff), AISTATS 2022, appendix:
training durations are half-normal. arXiv:2106.06639.

    slowness = sigma |z|,  z ~ N(0, 1):  the quantile of u is  sigma Phi^-1((1 + u) / 2)
"""

from typing import Annotated

import numpy as np
from annotated_types import Gt

from fl_sim.population.devices import Draw, Drawn, normal_quantile, thirds, uniform
from fl_sim.registry import offer


@offer("profile")
def halfnormal(sigma: Annotated[float, Gt(0)] = 1.0) -> Draw:
    """Half-normal slowness of scale ``sigma``; mean sigma sqrt(2 / pi)."""

    def draw(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        u = uniform(device, "slowness")
        return Drawn(sigma * normal_quantile((1 + u) / 2), thirds(u))

    return draw
