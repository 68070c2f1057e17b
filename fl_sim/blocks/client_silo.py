"""The interface of silos: what trains one client in the place of the loop engine, perhaps on several processes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fl_sim.tree import Tree


class ClientSilo(ABC):
    """Trains clients one after another. It is pickled with a learner, without the processes that it has started."""

    on_event: Callable[..., None] = staticmethod(lambda kind, **facts: None)
    """Callback for events that the log should record (a process that died)."""

    @abstractmethod
    def train(self, block: Any, job: Any, model: Tree, learner: Any) -> tuple[Tree, Tree, Tree]:
        """One client's training.

        Parameters
        ----------
        block : fl_sim.blocks.resolve.Block
            The rule and the settings of local training.
        job : fl_sim.blocks.resolve.Job
            The client, and the samples of each of its steps.
        model : Tree
            What the client receives, on the learner's device; it is not written into.
        learner : fl_sim.blocks.learner.Learner
            Samples, partition and loss.

        Returns
        -------
        reply, new_state, metrics
            As of ``fl_sim.learning.returned.call``. What is raised is the client's failure.
        """

    def summary(self) -> dict[str, object]:
        """Facts for summary.json."""
        return {}

    def close(self) -> None:
        """End the processes; a second call has no effect."""
        return
