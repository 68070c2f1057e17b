"""Finds the client half of an algorithm by the name and numbers in a message."""

from collections.abc import Mapping

from clients.personalize import Personalize, PersonalizeOwn
from fl_sim import registry
from fl_sim.blocks.learner import Settings
from fl_sim.dotted import table
from fl_sim.learning.rule import LocalRule
from fl_sim.wire.codec import Codec, Coding, factor_at
from strategies.codecs import NO_CODEC
from strategies.fedavg import FedAvg


def rule_for(message_type: str, settings: Settings, own: Mapping[str, type] | None = None) -> LocalRule:
    """The client half of a message's algorithm, built from its name and numbers; without a name, plain local training.

    In an evaluation the name and numbers are those of an algorithm that gives clients models of their own; without a
    name, the model in the message is evaluated.

    Parameters
    ----------
    message_type : str
        ``train``, or ``evaluate`` for personal evaluation.
    settings : Settings
        The message's settings by dotted name.
    own : Mapping, optional
        Classes of strategies by name, for names that cannot be imported, such as those of a notebook.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if message_type.startswith("evaluate"):
        numbers = table(settings, "personalize")
        steps, lr, batch_size = (numbers.get(name, 0) for name in ("steps", "lr", "batch_size"))
        rest = numbers.get("last_batch", "keep"), numbers.get("optimizer", "sgd"), numbers.get("queries", "together")
        common = int(steps), float(lr), int(batch_size), *rest
        if "strategy" not in settings:
            return Personalize(*common)
        return PersonalizeOwn(*common, rule=_named(settings, own))
    return _named(settings, own) if settings.get("strategy") is not None else FedAvg()


def coding_for(settings: Settings, own: Mapping[str, type] | None = None) -> Coding | None:
    """How replies to a message for training are coded; None where its settings name no codec.

    ``codec`` is the name, ``codec.*`` the codec's numbers and those common to all: ``feedback``, ``trees`` and
    ``schedule`` (see docs/codecs.md).

    Parameters
    ----------
    own : Mapping, optional
        Classes of codecs by name, for names that cannot be imported.

    Raises
    ------
    ValueError
        For an unknown name, and numbers that the codec does not take.
    """
    name = settings.get("codec", NO_CODEC)
    if name == NO_CODEC:
        return None
    found = own[name] if own and name in own else registry.find("strategies.codecs", "codec", name)
    numbers = table(settings, "codec")
    feedback, trees, schedule = (numbers.pop(k, "") for k in ("feedback", "trees", "schedule"))
    codec = found(**numbers)
    if not isinstance(codec, Codec):
        raise ValueError(f"codec.name = {name!r}: makes no fl_sim.wire.codec.Codec")
    server_round, rounds = int(settings.get("server-round", 1)), int(settings.get("rounds", 1))
    codec = codec.scaled(factor_at(schedule, server_round, rounds)) if schedule else codec.at(server_round, rounds)
    corrects = codec.biased and not codec.keeps_error if feedback == "" else bool(feedback)
    return Coding(codec, corrects, tuple(filter(None, str(trees).split(","))))


def _named(settings: Settings, own: Mapping[str, type] | None) -> LocalRule:
    """The client half with the name and numbers in ``settings``."""
    name = settings["strategy"]
    found = own[name] if own and name in own else registry.find("strategies", "strategy", name)
    rule: LocalRule = found(**table(settings, "strategy"))
    return rule
