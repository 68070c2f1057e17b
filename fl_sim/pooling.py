"""The marks by which the machine knows a strategy that pools before the reply. No paper."""

from abc import abstractmethod
from collections.abc import Sequence

from flwr.serverapp.strategy import Strategy

from fl_sim.pool import Pool


class PoolingStrategy(Strategy):
    """A Flower strategy that names a pool: replies may come as partial pools of whole blocks.

    Only when the object given to ``run_rounds`` is itself of this class does pooling happen before the
    reply. A wrapper around one (Flower's DP wrappers) gets one reply a client.
    """

    dropped: Sequence[int] = ()
    """Clients of the round whose partial work is not used: set by ``configure_train``."""

    @property
    @abstractmethod
    def pool(self) -> Pool:
        """The reduction of replies."""
