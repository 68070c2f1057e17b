"""Classes of devices, each with its seconds a launch, their deviation, and its bandwidths.

The model of NVIDIA FLARE's simulation of edge devices: a device's time is that of its class, normally distributed.

    seconds of a launch = max(0, seconds_k + deviation_k z) + delay,  z ~ N(0, 1), drawn anew for each launch
"""

import math
from typing import Annotated

import numpy as np
from annotated_types import Ge

from fl_sim import rng
from fl_sim.population.devices import Draw, Drawn, normal_quantile, uniform
from fl_sim.registry import offer


@offer("profile", step=0.0, classes="shares")
def tiers(
    clients: int,
    seed: int,
    per: str,
    shares: str = "1,1,1",
    seconds: str = "1,2,4",
    deviations: str = "",
    downs: str = "",
    ups: str = "",
    delay: Annotated[float, Ge(0)] = 0.0,
) -> Draw:
    """Classes with the shares ``shares``: lists of numbers, fastest class first. Raises ValueError for wrong lists.

    With ``profile.per = client`` each class has as many clients as its share says, to the nearest one; which they are
    is a keyed draw. With ``launch`` each launch draws its class.

    ``seconds`` and ``deviations`` are of a launch, whatever its steps (which cost ``profile.step`` more, by default 0);
    ``downs`` and ``ups`` are bytes a second, 0 for no limit.
    """
    share = numbers("shares", shares, 0)
    if not sum(share):
        raise ValueError(f"profile.shares = {shares!r}: all are 0; give at least one class a share")
    mean, deviation, down, up = (
        np.array(numbers(name, text or ",".join(["0"] * len(share)), len(share)))
        for name, text in (("seconds", seconds), ("deviations", deviations), ("downs", downs), ("ups", ups))
    )
    ends = np.cumsum(np.array(share) / sum(share))
    places = np.empty(clients if per == "client" else 0)
    places[rng.permutation(rng.key(seed, "device-class"), len(places))] = (np.arange(len(places)) + 0.5) / max(
        clients, 1
    )
    limited = [bool(x.any()) for x in (down, up)]
    down, up = (np.where(x == 0, math.inf, x) for x in (down, up))

    def draw(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        place = places[clients] if len(places) else uniform(device, "class")
        chosen = np.minimum(np.searchsorted(ends, place, side="right"), len(share) - 1)
        own = np.maximum(mean[chosen] + deviation[chosen] * normal_quantile(uniform(launch, "seconds")), 0) + delay
        speeds = (x[chosen] if has else None for has, x in zip(limited, (down, up), strict=True))
        return Drawn(np.ones(len(clients)), chosen, own, *speeds)

    return draw


def numbers(name: str, text: str, count: int) -> list[float]:
    """The numbers of a list such as ``6,5,5``; ``count`` of them, or any number where it is 0."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or (count and len(found) != count) or not all(0 <= x < math.inf for x in found):
        wanted = f"{count} numbers, one a class," if count else "numbers"
        raise ValueError(f"profile.{name} = {text!r}: must be {wanted} from 0 on, as 1,2,4")
    return found
