"""The replies that a server step takes, counted and checked as those of a round; and how many of them may fail."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flwr.app import Message

from fl_sim.grids.exchange import Exchange, Failures
from fl_sim.grids.virtual_time.event_clock import Flight
from fl_sim.population.devices import SECOND
from fl_sim.wire.reply_form import Likes


class Launched(NamedTuple):
    """A client that was started."""

    flight: Flight
    version: int
    """Server steps before the model from which it started."""
    message: Message
    number: str
    """The message's id; "" where its reply will never come."""
    num_bytes: int
    """Model bytes of the message."""


def facts_of(launched: Launched, staleness: int) -> dict[str, object]:
    """What a launch adds to its client's row in the log."""
    flight = launched.flight
    messages = {"virtual_down": flight.down / SECOND, "virtual_up": flight.up / SECOND}
    return {
        "staleness": staleness,
        "started": flight.begin / SECOND,
        "virtual_seconds": (flight.end - flight.begin) / SECOND,
        "speed_class": flight.speed_class,
        **(messages if flight.down or flight.up else {}),
    }


class StepExchange(Exchange):
    """The replies of one server step, which are read as they are needed."""

    def __init__(self, server_round: int, clients: Mapping[int, int], **more: object) -> None:
        super().__init__(server_round, "train", [], clients, **more)  # type: ignore[arg-type]
        self.taken: list[Launched] = []
        """All launches whose replies were read."""
        self._by_number: dict[str, Launched] = {}

    def take(
        self, launched: Sequence[Launched], replies: Sequence[Message], likes: Likes, policy: Failures
    ) -> list[tuple[Launched, Message]]:
        """The good ones of ``replies``, one to each launch. Raises RoundFailed as ``checked`` does."""
        self._by_number |= {one.number: one for one in launched}
        self.taken += launched
        self.messages = [one.message for one in launched]
        try:
            good = list(self.checked(replies, likes, policy))
        finally:
            self.messages = [one.message for one in self.taken]
        return [(self._by_number[reply.metadata.reply_to_message_id], reply) for reply in good]

    def staleness(self, launched: Launched) -> int:
        """Server steps between a launch and this step."""
        return self.server_round - 1 - launched.version

    @property
    def model_bytes(self) -> list[int]:
        """Model bytes that each message carried."""
        return [self._by_number[message.metadata.message_id].num_bytes for message in self.messages]

    @property
    def _own_sizes(self) -> bool:
        return True

    def _facts(self, message: Message) -> Mapping[str, object]:
        launched = self._by_number[message.metadata.message_id]
        return facts_of(launched, self.staleness(launched))

    def _check_completed(self) -> None:
        """Others are in flight: a step may wait for them."""


@dataclass(frozen=True)
class OfAllAnswers(Failures):
    """The share of the clients that may fail, of all that have answered in the run so far, or are in flight."""

    answered: int = 0
    failed: int = 0
    """Before this step."""
    concurrency: int = 1

    def allowed(self, num_clients: int) -> int:
        """How many may fail in this step."""
        return self._in_all - self.failed

    @property
    def _in_all(self) -> int:
        return math.floor(self.share * max(self.answered, self.concurrency) + 1e-9)

    def told(self, failed: int, num_clients: int) -> str:
        """Counts of the run so far, not of the replies that were read together."""
        if not self.share:
            return ""
        return f" (in this run {self.failed + failed} of {self.answered} answers failed, {self._in_all} allowed)"
