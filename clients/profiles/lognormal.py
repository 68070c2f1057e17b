"""Log-normal slowness.

F. Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at Scale", ICML 2022: measured
completion times are close to log-normal. arXiv:2105.11367.

    slowness = exp(mu + sigma z),  z ~ N(0, 1)
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from fl_sim.population.devices import Draw, Drawn, normal_quantile, thirds, uniform
from fl_sim.registry import offer


@offer("profile")
def lognormal(mu: float = 0.0, sigma: Annotated[float, Ge(0)] = 0.6) -> Draw:
    """Log-normal slowness: the logarithm has mean ``mu`` and deviation ``sigma``."""

    def draw(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        u = uniform(device, "slowness")
        return Drawn(np.exp(mu + sigma * normal_quantile(u)), thirds(u))

    return draw
