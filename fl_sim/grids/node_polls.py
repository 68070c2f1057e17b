"""Tells code that waits for more nodes than a simulation has, for ever, from code that asks for them now and then."""

import time
import traceback

POLLS, WAIT_S, PATIENCE_S = 4, 3.0, 60.0
"""Flower's strategies ask again only where they have too few nodes: after ``POLLS`` times in ``WAIT_S`` seconds they
wait for ever. Other code, which may have its reasons, does after ``PATIENCE_S`` seconds without a message; neither
does where it computes meanwhile."""


class NodePolls:
    """How often the nodes were asked for since the last exchange."""

    def __init__(self) -> None:
        self._polls: list[tuple[float, float]] = []

    def clear(self) -> None:
        """Forget the polls: messages were exchanged."""
        self._polls.clear()

    def never_end(self) -> bool:
        """Count one more poll; whether the code that polls would wait for ever."""
        self._polls = [*self._polls[:1], *self._polls[1:][-POLLS:], (time.monotonic(), time.process_time())]
        waited, worked = (now - first for now, first in zip(self._polls[-1], self._polls[0], strict=True))
        patience = WAIT_S if _in_sample_nodes() else PATIENCE_S
        return len(self._polls) >= POLLS and waited > patience and worked < waited / 5


def _in_sample_nodes() -> bool:
    """Whether Flower's function that waits for nodes is among the callers."""
    callers = (frame for frame, _ in traceback.walk_stack(None) if frame.f_code.co_name == "sample_nodes")
    return any(str(frame.f_globals.get("__name__")).startswith("flwr.") for frame in callers)
