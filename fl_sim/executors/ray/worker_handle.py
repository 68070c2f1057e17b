"""A worker as the driver sees it, and the message that gives a worker a run's learner."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fl_sim.executors.ray.worker import ComputeSettings


class LearnerMessage(NamedTuple):
    """A run's learner on its way to the workers."""

    key: str
    settings: ComputeSettings
    reference: object
    """The reference of the packed learner in the object store."""


@dataclass
class WorkerHandle:
    """A worker as the driver sees it."""

    number: int
    actor: Any
    starting: object = None
    """The reference of its facts, which arrive when it has read the learner that was sent last."""
    ready: bool = False
    facts: dict[str, object] = field(default_factory=dict)
    """What ``Worker.facts`` returned; empty until it was ready once."""
    loaded: set[str] = field(default_factory=set)
    """Keys of the objects that were sent to it; each begins with the name of a run."""

    def send_learner(self, message: LearnerMessage) -> None:
        """Send a run's learner, unless it has been sent before. The worker is not ready until it has read it."""
        if message.key not in self.loaded:
            self.starting, self.ready = self.actor.load_learner.remote(*message), False
            self.loaded.add(message.key)
