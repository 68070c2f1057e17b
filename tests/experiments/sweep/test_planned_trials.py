"""Names of a grid's trials: readable for objects too, and different for different values."""

from experiments.sweep.planned_trials import name_of
from strategies.fedprox import FedProx


class Mine:
    """A user's object without fields."""


def test_objects_are_named_by_their_class() -> None:
    points: list[dict[str, object]] = [
        {"strategy.name": Mine(), "local.lr": 0.1},
        {"strategy.name": FedProx},
        {"strategy.name": FedProx(mu=0.2)},
        {"strategy.name": FedProx(mu=0.3)},
    ]
    names = [name_of(point) for point in points]
    readable = [name.rpartition("-")[0] for name in names]
    assert readable[:2] == ["strategy=Mine,local.lr=0.1", "strategy=FedProx"]
    assert readable[2].startswith("strategy=FedProx-mu=0.2") and len(set(names)) == 4
