"""The one place that touches anything of Flower beyond its documented API.

An own ``Grid`` needs three private things (flwr 1.41): the process-global identity that ``Message``
reads, an id for each message, an empty ``Run``. Foreign strategies draw from global generators;
they are keyed here by (seed, round), so that Flower's own strategies become reproducible.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Message
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fl_sim import rng

SERVER_NODE = 1
"""Node id of the server; virtual client c is node c + FIRST_NODE."""
FIRST_NODE = 2


def identify(run_id: int = 1) -> Run:
    """Give this process the identity of a server, so that messages can be made; returns an empty Run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
    return Run.create_empty(run_id)


def set_message_id(message: Message, message_id: str) -> None:
    """Name a message; Flower leaves this to the SuperLink."""
    message.metadata.__dict__["_message_id"] = message_id


@contextmanager
def keyed_hook(foreign: bool, seed: int, hook: str, server_round: int) -> Iterator[None]:
    """Around a hook of a strategy: a foreign one sees global generators keyed by (seed, hook, round)."""
    if not foreign:
        yield
        return
    with rng.keyed_globals(rng.key(seed, hook, server_round)):
        yield


@contextmanager
def driven_by(start: Any) -> Iterator[None]:
    """While open, ``Strategy.start`` of every strategy that does not override it is ``start(strategy, grid, initial_arrays, ...)``."""
    original = Strategy.start
    Strategy.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Strategy.start = original  # type: ignore[method-assign]
