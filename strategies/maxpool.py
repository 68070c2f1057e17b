"""Element-wise max pooling of client models. No paper favours it.

On weights it is usually far worse than the mean (curves: ``experiments/results``), because the maximum of K noisy
copies is biased upward in every coordinate. It is included on request, and as the smallest example of a pool.

    weights:  w_i <- w_i + lr (max_k w_k,i - w_i)
    deltas:   w_i <- w_i + lr d_k*,i,   d_k = w_k - w,  k* = argmax_k |d_k,i|  (the largest move, with its sign)

A plain maximum of deltas would be the maximum of weights again, so deltas are pooled by magnitude.
"""

from dataclasses import dataclass

from fl_sim import Pool
from strategies.base.weights_or_deltas import WeightsOrDeltas
from strategies.pools.absmax import AbsMax
from strategies.pools.max import Max


@dataclass
class MaxPool(WeightsOrDeltas):
    """FedAvg with another pool, which ignores how many samples a client has.

    Models are pooled by maximum, updates by largest magnitude.
    """

    refuses = ("weighting",)

    @property
    def pool(self) -> Pool:
        """Maximum, or the value of largest magnitude."""
        return AbsMax() if self.of == "deltas" else Max()
