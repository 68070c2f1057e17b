"""Personal evaluation in a few numbers.

Wang et al., "Federated Evaluation of On-device Personalization", 2019, arXiv:1910.10252. "Before" and "after" mean a
metric on a client's own held-out samples, of the global model and of the model after fine-tuning.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = ("held_out", "loss_before", "loss", "accuracy_before", "accuracy")
"""The numbers of a client's reply that count here; an accuracy counts where all clients report it."""


def summarise(prefix: str, clients: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """Statistics over clients: means, the weighted mean, 10th percentile, the lowest, and the share that got worse.

    Parameters
    ----------
    prefix : str
        ``personal``, ``unseen`` or ``val_unseen``, with which the names of the numbers begin.
    clients : Sequence[Mapping]
        For each client ``held_out`` (a number of samples, the weight), ``loss_before``, ``loss`` and, where the task
        has them, ``accuracy_before`` and ``accuracy``. Clients without held-out samples do not count.

    Returns
    -------
    dict[str, float | int]
        By the names of columns in ``fl_sim.logs.columns``; {} where no client counts.
    """
    clients = [row for row in clients if row["held_out"] > 0]
    if not clients:
        return {}
    known = [k for k in COLUMNS if all(isinstance(row.get(k), (int, float)) for row in clients)]
    column = {k: np.array([row[k] for row in clients], dtype=float) for k in known}
    both = "accuracy" in column and "accuracy_before" in column
    better = column["accuracy"] - column["accuracy_before"] if both else column["loss_before"] - column["loss"]
    numbers: dict[str, float | int] = {"clients": len(clients), "share_worse": float((better < 0).mean())}
    numbers |= {"loss_before": float(column["loss_before"].mean()), "loss": float(column["loss"].mean())}
    if both:
        before, after, sizes = column["accuracy_before"], column["accuracy"], column["held_out"]
        numbers |= {"accuracy_before": _mean(before, sizes), "accuracy": _mean(after, sizes)}
        hits = _hits(after, sizes)
        weighted = np.average(after, weights=sizes) if hits is None else hits.sum() / sizes.sum()
        numbers["accuracy_weighted"] = float(weighted)
        numbers |= {"accuracy_p10": float(np.percentile(after, 10)), "accuracy_worst": float(after.min())}
    return {f"{prefix}_{k}": v for k, v in numbers.items()}


def _hits(shares: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
    """(C,) how many samples of each client are right, where every share is the float nearest to such a fraction."""
    hits = np.rint(shares * sizes)
    return hits if (hits / sizes == shares).all() else None


def _mean(shares: np.ndarray, sizes: np.ndarray) -> float:
    """The mean over C clients; of clients of one size the quotient of two counts, as if they were one."""
    hits = _hits(shares, sizes)
    if hits is None:  # several labels a sample, or a metric of the user's
        return float(shares.mean())
    return float(hits.sum() / sizes.sum()) if (sizes == sizes[0]).all() else math.fsum(shares) / len(shares)
