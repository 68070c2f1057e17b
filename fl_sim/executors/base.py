"""The interface of executors, which run a round's blocks: in this process, or on workers elsewhere.

Every executor returns results in the order of the plans, which a config fixes: the digest does not depend on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.results import BlockResult
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


class Executor(ABC):
    """Runs blocks, and central evaluation."""

    engine: str
    """Engine that runs a block's clients: loop or vmap."""
    chunk: int
    """Clients of a block that train at once, 0: all; halved where memory ran out."""
    runs: int = 1
    """Runs that share this process's time."""
    on_event: Callable[..., None] = staticmethod(lambda kind, **facts: None)
    """Callback for events that the log should record (a worker that died)."""

    @abstractmethod
    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Train the clients of blocks.

        Parameters
        ----------
        plans : Sequence[BlockPlan]
            The blocks of one kind of message.
        model : Tree
            The global model, on the learner's device.
        pool : Pool | None
            Reduces the replies of each block to a partial pool; None: each client's reply is returned.

        Returns
        -------
        Iterator[BlockResult]
            In the order of ``plans``.

        Raises
        ------
        RoundFailed
            Where a block cannot be run.
        """

    @abstractmethod
    def evaluate(self, model: Tree, data: Tree, rows: Tensor | None = None) -> dict[str, float]:
        """Loss and metrics as of ``fl_sim.engines.evaluate.evaluate``: the same bits, in lockstep equal to rounding.

        ``rows`` (n,) int64: the samples of ``data`` that count, on the same device; ``data`` is then mostly the
        learner's own, of which workers have a copy already. None: all.
        """

    def summary(self) -> dict[str, object]:
        """Facts for summary.json."""
        return {}

    def close(self) -> None:
        """Release workers; a second call has no effect."""
        return
