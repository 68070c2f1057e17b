"""Synthetic(alpha, beta): the IID data, and the default data as they were. More: ``tests/clients/test_tasks.py``."""

import numpy as np
import pytest
import torch

from clients.tasks.synthetic import synthetic
from fl_sim import rng, tree


def test_the_paper_s_iid_data_are_what_their_script_s_steps_give() -> None:
    """Sizes, one model, then each client's inputs: one linear model separates the classes of all clients."""
    task = synthetic(clients=4, iid=True, seed=3)
    draw = rng.legacy(3)
    sizes = draw.lognormal(4, 2, 4).astype(int) + 50
    weight, bias = draw.normal(0, 1, (60, 10)), draw.normal(0, 1, 10)
    assert task.clients is not None and np.bincount(task.clients).tolist() == [int(0.9 * n) for n in sizes]
    for k in range(4):
        x = draw.multivariate_normal(np.zeros(60), np.diag(np.arange(1, 61) ** -1.2), sizes[k])
        ours = {tuple(row) for row in task.train["x"][torch.from_numpy(task.clients == k)].double().numpy().round(4)}
        assert ours <= {tuple(row) for row in x.astype(np.float32).astype(np.float64).round(4)}
    for part in (task.train, task.test):
        assert ((part["x"].double().numpy() @ weight + bias).argmax(1) == part["y"].numpy()).mean() > 0.999


def test_the_default_data_stay_as_they_were() -> None:
    task = synthetic(clients=3)
    assert tree.digest(task.train)[:12] == "3483cc33ef30"


@pytest.mark.parametrize("key", ["alpha", "beta"])
def test_what_does_nothing_beside_iid_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=rf"task\.{key} = 0.5: does nothing with task.iid"):
        synthetic(iid=True, **{key: 0.5})
