"""Every strategy in strategies/ passes the contract tests with each of its options; a new file is found by itself."""

from collections.abc import Callable
from typing import Any

import pytest

from experiments.check import CHECKS, RAY_CHECKS, Target, targets_of
from fl_sim import registry

FOUND = registry.names("strategies", "strategy")
TARGETS = [target for name, cls in FOUND.items() for target in targets_of("strategy", name, cls)]
POOLS = [target for target in TARGETS if "reduction=" in target.name]
"""The pools by name, whose own tests are quick; ``make test-all`` runs the whole contract on each of them."""
MARKED = [pytest.param(t, marks=pytest.mark.slow if t in POOLS else ()) for t in TARGETS]
ON_RAY = [t for t in TARGETS if t not in POOLS or "'softmax'" in t.name or "'median'" in t.name]
"""Of the pools those whose work on Ray is of a kind of its own: one needs the global model, one keeps all replies."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("target", MARKED, ids=lambda target: target.name.replace("'", ""))
def test_contract(target: Target, check: Callable[[Any], None]) -> None:
    check(target.make)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("check", RAY_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("target", ON_RAY, ids=lambda target: target.name.replace("'", ""))
def test_contract_on_ray(target: Target, check: Callable[[Any], None]) -> None:
    check(target.make)


def test_the_promised_strategies_and_their_ways_are_there() -> None:
    assert {"fedavg", "fedprox", "maxpool", "reptile", "maml", "perfedavg"} <= set(FOUND)
    ways = {
        "maml(order=2)",
        "maml(optimizer='adam')",
        "perfedavg(order='hf')",
        "perfedavg(order='exact')",
        "maxpool(of='deltas')",
    }
    assert ways | {"reptile(anneal='linear')"} <= {target.name for target in TARGETS}
