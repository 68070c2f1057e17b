"""Synthetic(alpha, beta): multinomial logistic regression with a different true model for each client.

T. Li et al., "Federated Optimization in Heterogeneous Networks" (FedProx), MLSys 2020, section 5.1 and appendix C.1,
arXiv:1812.06127. The draws and their order are those of the authors' script, which seeds NumPy's legacy generator: with
``seed`` 0 the data set is theirs.

    n_k = int(lognormal(4, 2)) + 50;  u_k ~ N(0, alpha);  B_k ~ N(0, beta);  v_kj ~ N(B_k, 1)
    x ~ N(v_k, diag(j^-1.2));  W_k ~ N(u_k, 1);  b_k ~ N(u_k, 1);  y = argmax(x W_k + b_k)

As in the script, alpha and beta are standard deviations (the paper's text says N(0, alpha), which is the same at 1).
Note that u_k adds the same number to the scores of all ten classes, so that alpha changes no label: clients' true
models differ at any alpha, because of the variance 1 in W_k ~ N(u_k, 1). beta has the effect that the paper describes.
Synthetic(0, 0) is ``alpha`` and ``beta`` 0. The paper's IID data (``iid``) are of a script of its own: after the sizes

    W ~ N(0, 1);  b ~ N(0, 1), once for all clients;  x ~ N(0, diag(j^-1.2))

Legend: K clients, n_k samples of client k, N all training samples; 60 inputs, 10 classes.
"""

import math

import numpy as np
import torch

from fl_sim import rng
from fl_sim.learning.measures import accuracy
from fl_sim.learning.task import Task
from fl_sim.registry import offer
from fl_sim.tree import Tree

INPUTS, CLASSES = 60, 10
SPREAD = np.sqrt(np.arange(1, INPUTS + 1) ** -1.2)
"""Standard deviations of the inputs."""


@offer("task", default_model="lr")
def synthetic(clients: int = 30, alpha: float = 1.0, beta: float = 1.0, iid: bool = False, seed: int = 0) -> Task:
    """Natural clients with x (N, 60) float32 and 10 classes.

    Of each client's samples, int(0.9 n_k) are for training; the rest, chosen by a key, goes to the central test set.

    Parameters
    ----------
    clients : int (default: 30)
        K.
    alpha : float (default: 1)
        Standard deviation of the clients' u_k; it has no effect on the labels (see the module's docstring).
    beta : float (default: 1)
        Standard deviation of the clients' B_k: how much their inputs differ.
    iid : bool (default: False)
        Whether all clients have one true model and one distribution of inputs: the paper's IID data, without u_k, B_k.
    seed : int (default: 0)
        Seed of NumPy's legacy generator, 0..2^32 - 1.

    Raises
    ------
    ValueError
        For fewer than 1 client, a negative or infinite alpha or beta, one besides ``iid`` other than 0 and the default,
        or a seed outside the range.
    """
    if clients < 1:
        raise ValueError(f"task.clients = {clients}: must be at least 1")
    for name, value in [("alpha", alpha), ("beta", beta)]:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"task.{name} = {value}: must be a finite number, 0 or more")
        if iid and value not in (0, 1):
            why = "does nothing with task.iid, where all clients have one distribution; leave one of the two out"
            raise ValueError(f"task.{name} = {value}: {why}")
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"task.seed = {seed}: must lie in 0..{(1 << 32) - 1}")
    x, y, owner = _iid_samples(clients, seed) if iid else _samples(clients, alpha, beta, seed)
    kept = np.zeros(len(y), dtype=bool)
    for k, start in enumerate(np.searchsorted(owner, np.arange(clients)).tolist()):
        n = int((owner == k).sum())
        kept[start + rng.permutation(rng.key(seed, "synthetic-test", k), n)[: int(0.9 * n)]] = True
    train, test = _tree(x[kept], y[kept]), _tree(x[~kept], y[~kept])
    return Task("synthetic", train, test, CLASSES, metrics={"accuracy": accuracy}, labels=y[kept], clients=owner[kept])


def _samples(clients: int, alpha: float, beta: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and the client of every sample, one client after the other, in the authors' order of draws."""
    draw = rng.legacy(seed)
    sizes = draw.lognormal(4, 2, clients).astype(np.int64) + 50
    u, b = draw.normal(0, alpha, clients), draw.normal(0, beta, clients)
    v = draw.normal(b[:, None], 1, (clients, INPUTS))
    x, y = np.empty((sizes.sum(), INPUTS), np.float32), np.empty(sizes.sum(), np.int64)
    for k, end in enumerate(np.cumsum(sizes).tolist()):
        weight, bias = draw.normal(u[k], 1, (INPUTS, CLASSES)), draw.normal(u[k], 1, CLASSES)
        drawn = v[k] + SPREAD * draw.standard_normal((sizes[k], INPUTS))
        x[end - sizes[k] : end], y[end - sizes[k] : end] = drawn, (drawn @ weight + bias).argmax(1)
    return x, y, np.repeat(np.arange(clients), sizes)


def _iid_samples(clients: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``_samples``, of one true model and one distribution of inputs."""
    draw = rng.legacy(seed)
    sizes = draw.lognormal(4, 2, clients).astype(np.int64) + 50
    weight, bias = draw.normal(0, 1, (INPUTS, CLASSES)), draw.normal(0, 1, CLASSES)
    x = SPREAD * draw.standard_normal((sizes.sum(), INPUTS))
    return x.astype(np.float32), (x @ weight + bias).argmax(1), np.repeat(np.arange(clients), sizes)


def _tree(x: np.ndarray, y: np.ndarray) -> Tree:
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}
