"""The results of a block: each client's numbers, and the partial pool of its replies."""

from dataclasses import dataclass, field

from fl_sim.blocks.plan import BlockPlan
from fl_sim.tree import Tree


@dataclass
class ClientResult:
    """One client's answer."""

    position: int
    """Index of its message in the exchange."""
    client: int
    examples: int = 0
    """Training samples that it has."""
    steps: int = 0
    weight: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    reply: Tree = field(default_factory=dict)
    """Its own model or update; empty where the block was pooled."""
    state: Tree = field(default_factory=dict)
    num_bytes: int = 0
    """Bytes of its reply, pooled or not: what a real device would send."""
    reason: str = ""
    """Why it failed; empty if it did not."""


@dataclass
class BlockResult:
    """A block's answer: the partial pool of its surviving clients, and each client's own numbers."""

    plan: BlockPlan
    clients: list[ClientResult]
    partial: Tree | None = None
    notes: list[str] = field(default_factory=list)
    """What is worth an event (a block that fell back to the loop)."""
    chunk: int = 0
    """The inner chunk it ran with: smaller than asked where memory ran out."""
    places: int = 0
    """Samples that its batches had room for, padding included; 0 where nothing was padded."""
    samples: int = 0
    """How many of these were real."""
