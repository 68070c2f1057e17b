"""The two halves apart: the client's holds plain numbers only; the server's state is kept, also from older
checkpoints.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from clients.rules import rule_for
from experiments.check import variants
from experiments.check.world import TRAINING, plain, trained, world
from fl_sim import registry, tree
from fl_sim.tree import Tree
from strategies.base import Strategy
from strategies.fedavg import FedAvg
from strategies.maml import MAML

STRATEGIES = registry.names("strategies", "strategy")
CASES = [(cls, arguments) for cls in STRATEGIES.values() for arguments in variants(cls)]


def is_plain(value: object) -> bool:
    """A number, a text, a truth value or nothing."""
    return value is None or isinstance(value, int | float | str)


@pytest.mark.parametrize("cls, arguments", CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_the_rule_that_an_engine_gets_holds_plain_numbers_only(cls: type[Strategy], arguments: dict[str, Any]) -> None:
    strategy = cls(**arguments)
    rule = rule_for("train", strategy.round_settings(1, {**TRAINING}))
    assert type(rule) is cls and all(map(is_plain, vars(rule).values()))
    assert rule.parameters() == strategy.parameters()  # type: ignore[attr-defined]


def test_the_rule_of_personal_evaluation_holds_plain_numbers_only() -> None:
    assert all(map(is_plain, vars(rule_for("evaluate", {"personalize.steps": 3, "personalize.lr": 0.1})).values()))


def test_after_a_run_the_server_has_state_and_a_new_rule_has_none() -> None:
    strategy = MAML(optimizer="adam")
    trained(strategy)
    assert set(strategy.server_state) == {"first", "second"} and MAML().server_state == {}
    assert set(strategy.__getstate__()) >= {"server_state", "inner_lr"} and "model" not in strategy.__getstate__()
    assert not vars(rule_for("train", strategy.round_settings(2, {}))).get("server_state")


def test_an_older_checkpoint_of_mamls_moments_is_its_server_state() -> None:
    moments = {"first": {"w": torch.ones(2)}, "second": {"w": torch.ones(2)}}
    strategy = MAML(optimizer="adam")
    strategy.restore({"moments": moments, "rounds": 5})
    assert strategy.server_state == moments and strategy.rounds == 5 and "moments" not in vars(strategy)


@dataclass
class KeepsAttributes(Strategy):
    """A user's strategy that keeps its server state in attributes, one of them named as MAML's once was."""

    def __post_init__(self) -> None:
        self.velocity: Tree = {}

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        """Momentum."""
        update = tree.sub(model, pooled)
        self.velocity = tree.add(tree.scale(self.velocity, 0.9), update) if self.velocity else update
        self.moments = server_round
        return tree.sub(model, self.velocity)


def test_a_users_attributes_are_kept_and_restored_under_their_names() -> None:
    strategy, again = KeepsAttributes(), KeepsAttributes()
    trained(strategy)
    again.restore(strategy.__getstate__())
    assert tree.digest(again.velocity) == tree.digest(strategy.velocity) and again.moments == strategy.moments


def test_server_state_in_the_mapping_or_in_attributes_gives_the_same_model() -> None:
    @dataclass
    class KeepsState(Strategy):
        def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
            update = tree.sub(model, pooled)
            old = self.server_state.get("velocity")
            self.server_state = {"velocity": tree.add(tree.scale(old, 0.9), update) if old else update}
            return tree.sub(model, self.server_state["velocity"])

    assert tree.digest(trained(KeepsState()).model) == tree.digest(trained(KeepsAttributes()).model)
    assert tree.digest(trained(KeepsState()).model) != tree.digest(plain(FedAvg).model) and len(world()[1]) > 0


class Asks(FedAvg):
    """Has an evaluation of its own."""

    def configure_evaluate(self, *arguments: Any) -> Any:
        """As its base class."""
        return super().configure_evaluate(*arguments)


@pytest.mark.parametrize("every, due", [(0, [4]), (2, [2, 4]), (3, [3, 4])])
def test_hooks_of_evaluation_are_called_in_rounds_that_have_one(every: int, due: list[int]) -> None:
    config = {"personalize.steps": 1, "personalize.every": every, "rounds": 4}
    assert [number for number in range(1, 5) if FedAvg().evaluates(number, config)] == due
    assert not FedAvg().evaluates(4, {**config, "personalize.steps": 0})
    assert Asks().evaluates(1, {}) and Asks().evaluates(1, config)  # whatever its own evaluation reads
