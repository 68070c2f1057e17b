"""The results of a block: each client's numbers, and the partial pool of its replies."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.drift import DriftSums, merged
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool
from fl_sim.wire.set_records import Flat


@dataclass
class ClientResult:
    """The result of one client."""

    position: int
    """Index of its message in the exchange."""
    client: int
    examples: int = 0
    """Training samples of the client."""
    steps: int = 0
    weight: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    sets: dict[str, Flat] = field(default_factory=dict)
    """Its set metrics, as they travel; empty where it evaluated none."""
    reply: Tree = field(default_factory=dict)
    """The client's model or update; empty where the block's replies were pooled."""
    state: Tree = field(default_factory=dict)
    """The client's new state."""
    code: Tree = field(default_factory=dict)
    """The code of its reply on a device; ``reply`` then has the leaves that are not coded."""
    num_bytes: int = 0
    """Bytes of the client's reply, pooled or not: what a real device would send."""
    num_bytes_raw: int = 0
    """Bytes that it would be without a codec; 0 where there is none."""
    reason: str = ""
    """Why the client failed; empty where it did not."""
    seconds: float | None = None
    """Wall time of its training; of clients that trained together an equal share of theirs. None where not known."""
    worker: int | None = None
    """Which of Ray's workers computed it; None for this process."""


@dataclass
class BlockResult:
    """The result of a block: the partial pool of its surviving clients, and each client's own numbers."""

    plan: BlockPlan
    clients: list[ClientResult]
    partial: Tree | None = None
    notes: list[str] = field(default_factory=list)
    """Events for the log (the block fell back to the loop)."""
    chunk: int = 0
    """Clients that trained at once; smaller than configured where memory ran out."""
    places: int = 0
    """Sample places in the padded batches, padding included; 0 where nothing was padded."""
    samples: int = 0
    """How many of ``places`` held real samples."""
    bits_changed: bool = False
    """Whether bits depend on time: a client hung, or the block ran in another way because one did."""
    pool_seconds: float = 0.0
    """Wall time of adding replies to the partial pool."""
    drift: DriftSums | None = None
    """Sums over the updates of its clients, where the learner asks for them (``Learner.log_drift``)."""


def joined(plan: BlockPlan, parts: Iterable[BlockResult], pool: Pool | None, chunk: int) -> BlockResult:
    """The result of a block from those of its parts, in their order; ``chunk`` is what later blocks begin with."""
    result = BlockResult(plan, [], chunk=chunk)
    for part in parts:
        result.clients += part.clients
        result.places, result.samples = result.places + part.places, result.samples + part.samples
        result.bits_changed = result.bits_changed or part.bits_changed
        result.pool_seconds, result.drift = result.pool_seconds + part.pool_seconds, merged(result.drift, part.drift)
        if pool is not None and part.partial is not None:
            result.partial = part.partial if result.partial is None else pool.merge(result.partial, part.partial)
    return result
