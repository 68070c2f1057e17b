"""ALIE: malicious clients send a model that is just within the spread of the honest ones, all on one side.

Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019,
arXiv:1902.06156. There mean and deviation are estimated from the malicious clients' own updates; here, as in most later
work, they are those of the honest ones. The deviation is the population's (divided by H), as in the authors' code.

    w_k' - w = mean_j (w_j - w) - z std_j (w_j - w),    each number by itself, over the honest clients j
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from fl_sim.blocks.attack import Attack
from fl_sim.tree import Tree


@dataclass(frozen=True)
class LittleIsEnough(Attack):
    """Malicious clients send mean - z std of the honest updates, number by number, which they are taken to know."""

    z: Annotated[float, Gt(0)] = 1.5
    """Distance from the honest mean, in standard deviations."""

    def collusion(self, honest: Tree) -> Tree:
        """What each malicious client sends; every honest client counts the same."""
        return {k: x.mean(0) - self.z * x.std(0, correction=0) for k, x in honest.items()}
