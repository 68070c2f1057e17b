"""Local training without communication: each client trains a model of its own, and sends nothing.

The row with which every personal table begins; "local" in Li, Hu, Beirami, Smith, "Ditto", ICML 2021, arXiv:2012.04221.

    client:  w_k <- w_k - lr * grad l(w_k; b)   over E passes, from the common initial model
    server:  keeps the initial model
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fl_sim import Loss
from strategies.base import Strategy


@dataclass
class LocalOnly(Strategy):
    """All leaves of the model stay with the client; personal evaluation (``personalize_steps``) is of its own model."""

    partial_work = "keep"
    refuses = ("server.lr", "weighting")

    def home(self, loss: Loss) -> Sequence[str]:
        """The whole model."""
        return loss.form.names
