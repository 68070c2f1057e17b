"""Finds the client half of an algorithm by the name and numbers in a message."""

from collections.abc import Mapping

from clients.personalize import Personalize
from fl_sim import registry
from fl_sim.blocks.learner import Settings
from fl_sim.learning.rule import LocalRule
from strategies.fedavg import FedAvg


def rule_for(message_type: str, settings: Settings, own: Mapping[str, type] | None = None) -> LocalRule:
    """The client half that a message names: by its name and numbers; plain local training where it names none.

    ``own`` holds classes that cannot be imported by name (a notebook's). Raises ValueError for an unknown name.
    """
    if message_type.startswith("evaluate"):
        given = {k.removeprefix("personalize."): v for k, v in settings.items() if k.startswith("personalize.")}
        return Personalize(int(given.get("steps", 0)), float(given.get("lr", 0.0)), int(given.get("batch_size", 0)))
    name = settings.get("strategy")
    if name is None:
        return FedAvg()
    found = own[name] if own and name in own else registry.find("strategies", "strategy", name)
    rule: LocalRule = found(
        **{k.removeprefix("strategy."): v for k, v in settings.items() if k.startswith("strategy.")}
    )
    return rule
