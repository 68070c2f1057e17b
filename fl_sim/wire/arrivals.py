"""What an asynchronous strategy is to its driver: what clients that start are sent, and a step with some replies."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fl_sim.tree import Tree
from fl_sim.wire.pool import PoolingStrategy


class Arrived(NamedTuple):
    """A client's reply, as a server's step gets it."""

    reply: Tree
    """The client's model, or its update, as the rule's ``reply_kind`` says; may be written into."""
    staleness: int
    """Server steps between the client's start and this one; 0: it started from the model that this step changes."""
    client: int
    numbers: Mapping[str, Any]
    """``num-examples``, ``steps`` and metrics of the reply."""
    start: Tree
    """The model from which the client started, to be read; {} unless the strategy has ``needs_start``."""


class AsynchronousStrategy(PoolingStrategy):
    """A strategy whose server steps with some replies while other clients are at work; ``run_async`` drives it."""

    asynchronous: ClassVar[bool] = True
    one_reply_a_client = True
    needs_start: ClassVar[bool] = False
    """Whether a step reads the models from which the clients started; they are then kept until it has."""
    persistent: ClassVar[bool] = False
    """Whether the same clients, drawn once, work during the whole run: each waits until it is ``released``."""
    concurrency: int = 0
    """Clients in flight: set by the run."""

    @property
    def replies_a_step(self) -> int:
        """The number of replies that the next server step takes; read before each. Default: 1."""
        return 1

    def accepts(self, staleness: int) -> bool:
        """Whether a reply of this staleness is used; one that is not is dropped, unread. Default: all are."""
        return True

    def released(self, waiting: Mapping[int, int], working: Mapping[int, int], stepped: bool) -> Sequence[int]:
        """Of persistent workers that wait, those that start now, from the present model. Default: all.

        Asked at the start, and at each instant at which a worker was done, after the server's steps of that instant.

        Parameters
        ----------
        waiting, working : Mapping[int, int]
            Client id -> how many launches it has completed: of those that wait, and of those in flight.
        stepped : bool
            Whether the server has stepped since this was asked last; True at the start.
        """
        return list(waiting)

    def check_asynchronous(self) -> None:
        """Raise ConfigError where the strategy cannot run asynchronously. Default: it can."""

    @abstractmethod
    def launch_content(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, again: int) -> RecordDict:
        """What the messages hold that start clients: one object for all that start from the same model.

        Parameters
        ----------
        server_round : int
            The number of the next server step: the present model is that of the step before.
        arrays, config : ArrayRecord, ConfigRecord
            The present model, and the run's settings.
        again : int
            How many times the client was started from this model before.
        """

    @abstractmethod
    def stepped(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        """The new global model; ``arrived`` in the order in which the clients were done."""
