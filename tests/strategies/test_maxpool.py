"""Max pooling by hand on two clients and three weights, end to end."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from strategies.fedavg import FedAvg
from strategies.maxpool import MaxPool

# Three weights, squared error: dl/dw_i = (2 / 3) (w_i - mean y_i), so that one step of lr 3/2 on all samples ends at
# the client's mean.
STEP = {"local.lr": 1.5, "local.batch_size": 0}
A, B = [[1.0, -5.0, 2.0]], [[0.0, 3.0, -4.0], [0.0, 3.0, -4.0]]


@pytest.mark.parametrize(
    "of, start, server_lr, expected",
    [
        ("weights", [0.0, 0.0, 0.0], 1.0, [1.0, 3.0, 2.0]),
        ("weights", [1.0, 1.0, 1.0], 1.0, [1.0, 3.0, 2.0]),  # the start of the round plays no part
        ("weights", [1.0, 1.0, 1.0], 0.5, [1.0, 2.0, 1.5]),
        ("deltas", [0.0, 0.0, 0.0], 1.0, [1.0, -5.0, -4.0]),
        # Deltas (0, -6, 1) and (-1, 2, -5): the largest are (-1, -6, -5).
        ("deltas", [1.0, 1.0, 1.0], 1.0, [0.0, -5.0, -4.0]),
        ("deltas", [1.0, 1.0, 1.0], 0.5, [0.5, -2.0, -1.5]),
    ],
)
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_by_hand(
    targets: Any, of: Any, start: list[float], server_lr: float, expected: list[float], engine: str
) -> None:
    strategy = MaxPool(of=of)
    strategy.server_lr = server_lr
    trained = targets([A, B]).train(strategy, STEP, {"w": torch.tensor(start)}, engine=engine)
    torch.testing.assert_close(trained.model["w"], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("of", ["weights", "deltas"])
def test_weights_of_clients_play_no_part(smooth: Any, of: Any) -> None:
    digests = set()
    for weighting in ("examples", "uniform"):
        strategy = MaxPool(of=of)
        strategy.weighting = weighting
        digests.add(tree.digest(smooth.train(strategy, {"local.batch_size": 5}, rounds=2).model))
    assert len(digests) == 1


@pytest.mark.parametrize("of", ["weights", "deltas"])
def test_of_one_client_it_is_fedavg(federation: Any, smooth: Any, of: Any) -> None:
    both = []
    for strategy in (MaxPool(of=of), FedAvg()):
        strategy.cohort = 1
        both.append(smooth.train(strategy, {"local.batch_size": 5}, rounds=3).model)
    for name, value in both[0].items():
        torch.testing.assert_close(value, both[1][name], rtol=0, atol=1e-12)


def test_the_maximum_of_weights_is_no_smaller_than_any_client(smooth: Any) -> None:
    """The bias that makes it a bad algorithm: every coordinate moves up to the largest of the clients."""
    settings = {"local.batch_size": 5, "local.epochs": 2}
    most = smooth.train(MaxPool(), settings).model
    mean = smooth.train(FedAvg(), settings).model
    assert all(bool((most[k] >= mean[k] - 1e-12).all()) for k in most) and any(
        bool((most[k] > mean[k] + 1e-6).all()) for k in most
    )
