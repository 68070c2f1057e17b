"""Sign flip: a malicious client trains as the others do and sends its update reversed and enlarged.

Damaskinos, El Mhamdi, Guerraoui, Guirguis, Rouault, "AggregaThor: Byzantine Machine Learning via Robust Gradient
Aggregation", MLSys 2019 (reversed and amplified gradients); the factor 5 is this project's.

    w_k' = w - factor (w_k - w)
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from fl_sim import tree
from fl_sim.blocks.attack import Attack
from fl_sim.learning.rule import Draw
from fl_sim.tree import Tree


@dataclass(frozen=True)
class SignFlip(Attack):
    """A malicious client sends its own update times -factor."""

    factor: Annotated[float, Gt(0)] = 5.0
    """Length of the reversed update, in lengths of the client's own one."""

    def update(self, own: Tree, draw: Draw) -> Tree:
        """The client's update, reversed."""
        return tree.scale(own, -self.factor)
