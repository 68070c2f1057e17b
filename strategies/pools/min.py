"""Element-wise minimum of client models. No paper; the mirror image of ``max``.

    finish_i = min_k w_k,i

A weight means nothing to it. It commutes with translation: the minimum of deltas leads to the minimum of weights.
"""

import torch

from strategies.pools.max import Max


class Min(Max):
    """Element-wise minimum; the clients' weights are ignored."""

    over = staticmethod(torch.amin)
    between = staticmethod(torch.minimum)
