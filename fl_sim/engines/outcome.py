"""What an engine returns for some clients of a block.

Legend: C clients of the outcome.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fl_sim.blocks.resolve import Job
from fl_sim.tree import Tree


@dataclass
class Outcome:
    """The results of clients that were run together, or of one client that raised."""

    jobs: Sequence[Job]
    replies: Tree = field(default_factory=dict)
    """Stacked (C, ...)."""
    states: Tree = field(default_factory=dict)
    """Stacked (C, ...): the clients' new states."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Each (C,)."""
    error: str = ""
    """A traceback; the fields above are then empty."""
    places: int = 0
    """Sample places in the padded batches, padding included; 0 where nothing was padded."""
    samples: int = 0
    """How many of ``places`` hold real samples."""
    note: str = ""
    """An event for the log (the clients fell back to the loop); empty: none."""
