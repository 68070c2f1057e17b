"""FedAsync's three functions of staleness, by hand: alpha .5, replies 1, 2 and 4 onto a model of one weight, 0."""

import pytest
import torch

from strategies.base.asynchronous import Arrived
from strategies.fedasync import FedAsync


@pytest.mark.parametrize(
    "staleness, late, expected",
    [
        ("constant", (0, 3, 8), (0.5, 1.25, 2.625)),  # half the way to each reply
        ("polynomial", (0, 3, 8), (0.5, 0.875, 0.875 + 3.125 / 6)),  # 1, 1/2 and 1/3 of alpha
        ("hinge", (0, 4, 6), (0.5, 1.25, 1.25 + 2.75 / 42)),  # 1, 1 and 1/21 of alpha
    ],
)
def test_three_replies_by_hand(staleness: str, late: tuple[int, ...], expected: tuple[float, ...]) -> None:
    strategy = FedAsync(alpha=0.5, staleness=staleness)  # type: ignore[arg-type]
    model, seen = {"w": torch.zeros(1).double()}, list[float]()
    for number, (reply, d) in enumerate(zip((1.0, 2.0, 4.0), late, strict=True)):
        arrived = Arrived({"w": torch.tensor([reply]).double()}, d, 0, {}, {})
        model = strategy.stepped(model, [arrived], number + 1)
        seen.append(float(model["w"]))
    assert seen == pytest.approx(expected, abs=1e-12)


def test_running_statistics_are_those_of_the_replies() -> None:
    """Not mixed by alpha: the model's own are the client's."""
    strategy = FedAsync(alpha=0.5, staleness="constant")
    strategy.statistics = ("n", "mean")
    model = {"w": torch.zeros(1), "n": torch.tensor(3), "mean": torch.ones(1)}
    reply = {"w": torch.ones(1), "n": torch.tensor(5), "mean": torch.full((1,), 3.0)}
    new = strategy.stepped(model, [Arrived(reply, 0, 0, {}, {})], 1)
    assert {k: x.item() for k, x in new.items()} == {"w": 0.5, "n": 5, "mean": 3.0} and new["n"].dtype == torch.int64
