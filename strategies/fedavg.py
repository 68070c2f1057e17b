"""FedAvg: clients train, and the server takes the weighted mean of their models.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, arXiv:1602.05629, algorithm 1.

    client:  w_k <- w - lr * grad l(w; b)   over E passes in batches of B
    server:  w <- sum_k (n_k / n) w_k
"""

from dataclasses import dataclass

from strategies.base import Strategy


@dataclass
class FedAvg(Strategy):
    """Plain local training, and the mean of models weighted by examples: the base class without a change."""
