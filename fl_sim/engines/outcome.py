"""What an engine hands back for some clients of a block. Legend: C clients of the outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fl_sim.blocks.resolve import Job
from fl_sim.tree import Tree


@dataclass
class Outcome:
    """Clients that were run together, or one that raised."""

    jobs: Sequence[Job]
    replies: Tree = field(default_factory=dict)
    """Stacked (C, ...)."""
    states: Tree = field(default_factory=dict)
    """Stacked (C, ...): the clients' new states."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Each (C,)."""
    error: str = ""
    """A traceback; then the rest is empty."""
    places: int = 0
    """Samples that its batches have room for, padding included; 0 where nothing was padded together."""
    samples: int = 0
    """How many of these are real."""
    note: str = ""
    """An event worth logging (a block that fell back to the loop)."""
