"""The signed root mean square. No paper; ``lp`` at p = 2.

    m_i = sum_k n_k s(w_k,i) w_k,i^2 / sum_k n_k,      finish_i = s(m_i) |m_i|^(1/2),      s: the sign

A weight counts as that many equal replies. It does not commute with translation.
"""

from strategies.pools.lp import Lp


class L2(Lp):
    """The signed root mean square."""

    def __init__(self) -> None:
        super().__init__(2.0)
