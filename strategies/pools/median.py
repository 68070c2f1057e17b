"""The coordinate-wise median.

Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
arXiv:1803.01498, definition 1.

    finish_i = median_k w_k,i   (of an even number of clients the mean of the middle two)

A weight means nothing to it. It commutes with translation.
"""

from strategies.pools.trimmed import Trimmed


class Median(Trimmed):
    """The trimmed mean that leaves one reply, or two."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def cut(self, count: int) -> int:
        """All but one or two."""
        return (count - 1) // 2
