"""Inner product manipulation: malicious clients send the mean of the honest updates, reversed.

Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019,
PMLR 115, 2020, arXiv:1903.03936.

    w_k' - w = -eps mean_{j honest} (w_j - w)

A large eps (10) drives a mean away; a small one (.5) stays so near the honest updates that rules which look for
outliers keep it.
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from fl_sim.blocks.attack import Attack
from fl_sim.tree import Tree


@dataclass(frozen=True)
class InnerProduct(Attack):
    """Malicious clients send -eps times the mean of the honest updates, which they are taken to know."""

    eps: Annotated[float, Gt(0)] = 10.0
    """Length of what they send, in lengths of the honest mean."""

    def collusion(self, honest: Tree) -> Tree:
        """What each malicious client sends; every honest client counts the same."""
        return {k: -self.eps * x.mean(0) for k, x in honest.items()}
