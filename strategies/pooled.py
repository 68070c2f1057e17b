"""FedAvg with any pool of ``strategies/pools``, of weights or of deltas. No paper; each pool names its own.

    weights:  w <- w + lr (pool_k w_k - w)          deltas:  w <- w + lr pool_k (w_k - w)

Where the pool commutes with translation (mean, max, min, softmax, trimmed, median, geometric median), both are the same
algorithm; ``docs/pooling.md`` tells which to take when.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from fl_sim import Pool
from fl_sim.registry import NameOf
from strategies.base.reductions import PACKAGE, make_pool, numbers_of
from strategies.base.weights_or_deltas import WeightsOrDeltas


@dataclass
class AnyPool(WeightsOrDeltas):
    """FedAvg with the pool that ``reduction`` names; mean at server lr 1 is FedAvg."""

    reduction: Annotated[str, NameOf("pool", PACKAGE)] = "mean"
    """The pool: a name that ``python -m experiments.list`` prints under pools, or package.module:Class."""
    p: Annotated[float, Ge(1)] = 4.0
    """Exponent of lp: 1 is the mean, large ones approach absmax."""
    T: Annotated[float, Gt(0)] = 1.0
    """Temperature of softmax, in standard deviations of the global tensor: small ones approach max, large ones mean."""
    share: Annotated[float, Ge(0), Lt(0.5)] = 0.1
    """Share of the replies that trimmed leaves out at each end."""

    @property
    def pool(self) -> Pool:
        """The pool, for the global model at the round's start. Raises ConfigError for a name that is not found."""
        return make_pool(self.reduction, self._numbers, getattr(self, "model", None))

    @property
    def _numbers(self) -> dict[str, float]:
        return {"p": self.p, "T": self.T, "share": self.share}

    @property
    def idle_parameters(self) -> Mapping[str, str]:
        """The numbers of other pools."""
        own = numbers_of(self.reduction)
        return {k: f"the pool {self.reduction} has no number {k}" for k in self._numbers if k not in own}

    @property
    def wrong_values(self) -> Mapping[str, Mapping[object, str]]:
        """Weights of clients, where the pool ignores them."""
        why = f"the pool {self.reduction} ignores how much a client weighs"
        return {"weighting": dict.fromkeys(["examples", "uniform"], why)} if self.pool.ignores_weights else {}
