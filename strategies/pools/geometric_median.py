"""The geometric median of whole models: robust while bad clients have less than half of the weight.

Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning" (RFA), IEEE Transactions on Signal Processing
2022, arXiv:1912.13445, algorithm 2 (smoothed Weiszfeld).

    finish = argmin_z sum_k n_k |z - w_k|,   by   z <- sum_k b_k w_k / sum_k b_k,   b_k = n_k / max(|z - w_k|, 1e-6)

from the weighted mean on, until z moves by less than 1e-8 of the mean distance to the replies, or 1000 times. The
distance is that of all leaves of numbers together; integer leaves get the same combination, rounded. A weight is the
share of a client in the sum of distances. It commutes with translation.
"""

import torch
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire.pool import as_like
from strategies.pools._stack import Stack

SMOOTHING, STOP, MOST = 1e-6, 1e-8, 1000
"""The least distance, the relative step that ends the iteration, and the largest number of steps."""


class GeometricMedian(Stack):
    """The point with the least weighted sum of distances to the replies."""

    def reduce(self, replies: Tree, weights: Tensor, like: Tree) -> Tree:
        """Smoothed Weiszfeld in float64; the replies are first sorted, so that their order changes no bit."""
        flat = {k: x.to(torch.float64).reshape(len(weights), -1) for k, x in replies.items()}
        floats = [flat[k] for k, x in replies.items() if x.is_floating_point()] or [torch.zeros(len(weights), 1)]
        x = torch.cat(floats, 1).to(torch.float64)
        rows = x.cpu().numpy()
        order = sorted(range(len(rows)), key=lambda c: (float(weights[c]), rows[c].tobytes()))
        x, shares = x[order], (weights[order] / weights.sum()).to(x)
        z = shares @ x
        for _ in range(MOST):
            distances = (x - z).norm(dim=1)
            b = shares / distances.clamp_min(SMOOTHING)
            b = b / b.sum()
            old, z = z, b @ x
            if (z - old).norm() <= STOP * (shares @ distances):
                break
        combined = {k: (b @ part[order]).reshape(like[k].shape) for k, part in flat.items()}
        return {k: as_like(part, like[k]) for k, part in combined.items()}
