"""A round's replies, as a strategy with a payload gets them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fl_sim.tree import Tree


class Pooled(NamedTuple):
    """A round's replies, as ``payload_step`` gets them."""

    model: Tree
    """The pooled models, or updates."""
    payload: Mapping[str, Tree]
    """The pooled trees of the payload, by name."""
    clients: Sequence[Mapping[str, Any]]
    """The numbers of each client that replied: ``num-examples``, ``steps``, and its metrics."""
