"""The loop for a system that runs round after round: it does one round, or one whole run, for each request."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from experiments.bench.children.protocol import Facts, ParentConnection


class TrainingRun(Protocol):
    """A federated run in progress."""

    def round(self, number: int) -> Facts:
        """Do round ``number``, counted from 0; returns its numbers of ``updates`` and ``examples``."""

    def accuracy(self) -> float:
        """The accuracy of the global model on the test samples."""


def drive(parent: ParentConnection, start: Callable[[], TrainingRun]) -> Facts:
    """Do what the parent requests, and return the final accuracy.

    Parameters
    ----------
    parent : the connection on which requests arrive.
    start : begins a run: reads the data and builds the model. In a whole run it is part of the timed work.
    """
    work = parent.job["work"]
    facts: Facts = {}
    if not work["whole"]:
        training, number = start(), 0
        while parent.next_requested(**facts):
            facts = training.round(number)
            number += 1
        return {"accuracy": training.accuracy()}
    accuracy = None
    while parent.next_requested(**facts):
        training, facts = start(), {"updates": 0, "examples": 0}
        for number in range(work["rounds"]):
            of_round = training.round(number)
            facts = {key: facts[key] + of_round[key] for key in facts}
            if evaluates(work, number + 1):
                accuracy = training.accuracy()
    return {"accuracy": accuracy}


def evaluates(work: Mapping[str, Any], number: int) -> bool:
    """Whether a whole run evaluates after ``number`` rounds."""
    return bool(work["evaluate_every"]) and number % work["evaluate_every"] == 0
