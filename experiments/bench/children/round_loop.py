"""Goes for a system that is a plain loop of rounds: one round each, or a whole run each. No paper."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from experiments.bench.children.protocol import Facts, Tokens


class Runner(Protocol):
    """A run under way."""

    def round(self, number: int) -> Facts:
        """Round ``number`` from 0; returns the updates and examples of it."""

    def accuracy(self) -> float:
        """Of the global model, on the test samples."""


def drive(tokens: Tokens, start: Callable[[], Runner]) -> Facts:
    """Do what is asked. In a whole run ``start`` is timed too: reading the data, making the model."""
    work = tokens.job["work"]
    facts: Facts = {}
    if not work["whole"]:
        runner, number = start(), 0
        while tokens.next(**facts):
            facts = runner.round(number)
            number += 1
        return {"accuracy": runner.accuracy()}
    last = None
    while tokens.next(**facts):
        runner, facts = start(), {"updates": 0, "examples": 0}
        for number in range(work["rounds"]):
            done = runner.round(number)
            facts = {key: facts[key] + done[key] for key in facts}
            if evaluates(work, number + 1):
                last = runner.accuracy()
    return {"accuracy": last}


def evaluates(work: Mapping[str, Any], number: int) -> bool:
    """Whether a whole run evaluates after round ``number``."""
    return bool(work["evaluate_every"]) and number % work["evaluate_every"] == 0
