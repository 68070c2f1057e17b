"""A simulation that loses or confuses clients' states does not pass the check of a strategy with states."""

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments.check.state_check import check_each_client_gets_its_own_state
from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines import loop, vmap
from fl_sim.grids import simulation
from tests.conformance.stateful import Visits, lost, swapped

CHECK = check_each_client_gets_its_own_state


@pytest.mark.parametrize("how", [lost, swapped])
def test_states_that_are_lost_or_swapped_before_training_are_seen(how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_blocks = simulation.plan_blocks

    def wrong(*arguments: Any) -> list[BlockPlan]:
        return [replace(plan, states=how(dict(plan.states))) for plan in plan_blocks(*arguments)]

    monkeypatch.setattr(simulation, "plan_blocks", wrong)
    with pytest.raises(AssertionError, match="by hand"):
        CHECK(functools.partial(Visits))


@pytest.mark.parametrize("engine", [loop, vmap])
def test_a_wrong_state_that_an_engine_returns_is_seen(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first client of the engine's results gets zeros."""
    original = engine.Outcome

    def wrong(jobs: Any, replies: Any = None, states: Any = None, *more: Any, **named: Any) -> Any:
        first = [float(job.client != 3) for job in jobs]
        states = {k: x * torch.tensor(first).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) for k, x in states.items()}
        return original(jobs, replies, states, *more, **named)

    monkeypatch.setattr(engine, "Outcome", wrong)
    name = engine.__name__.rpartition(".")[2]
    with pytest.raises(AssertionError, match=f"client 3 on {name} against calls by hand"):
        CHECK(functools.partial(Visits))


def test_a_strategy_with_states_passes() -> None:
    CHECK(functools.partial(Visits))
