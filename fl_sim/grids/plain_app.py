"""Virtual clients of an ordinary ClientApp: called once a message, with draws keyed by client and round."""

import time
from typing import Any

from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fl_sim import rng
from fl_sim.grids import no_answer
from fl_sim.grids.messages import CLIENT_ERROR, answered, client_of, settings_of
from fl_sim.wire import flower

clock = time.monotonic
"""Seconds, by which a call is late."""


class PlainApp:
    """A ClientApp that exposes no learner, with the state that each client keeps between messages.

    Parameters
    ----------
    app : ClientApp
        Called once a message.
    num_clients : int
        What the app's context calls ``num-partitions``.
    seed : int
        Keys the draws of the app from the global generators.
    run_config : dict
        What the app's context holds.
    """

    def __init__(self, app: ClientApp, num_clients: int, seed: int, run_config: dict[str, object]) -> None:
        self.app, self.num_clients, self.seed, self.run_config = app, num_clients, seed, run_config
        self._states: dict[int, RecordDict] = {}
        self._counts: dict[tuple[str, int, int], int] = {}

    def draw(self, message: Message) -> int:
        """The key of the draws for a message.

        It depends on seed, message type, round (0 where the message names none) and client, and on how many such
        messages came before.
        """
        server_round = settings_of(message, self.seed).get("server-round")
        known = server_round if isinstance(server_round, int) else 0
        kind = (message.metadata.message_type, known, client_of(message))
        count = self._counts[kind] = self._counts.get(kind, -1) + 1
        return rng.key(self.seed, *kind, count)

    def __call__(self, message: Message, draw: int, timeout: float | None = None) -> Message:
        """The client's reply, with an id; its new state is kept only where the app returned a proper reply.

        An error of the kinds of ``no_answer`` for a node that does not exist, for a message that the app has no
        function for, and where the call took more than ``timeout`` seconds of wall time, whose state is kept. A client
        of the API before messages that says by its status that it cannot train has failed; one that cannot evaluate has
        no function for that.
        """
        client, node, kind = client_of(message), message.metadata.dst_node_id, message.metadata.message_type
        if not 0 <= client < self.num_clients:
            nodes = f"{flower.FIRST_NODE}..{flower.FIRST_NODE + self.num_clients - 1}"
            return no_answer.of(message, no_answer.NO_NODE, f"message to node {node}: this grid has nodes {nodes}")
        if not flower.has_function(self.app, kind):
            reason = f"message of type {kind!r}: the ClientApp has no function for it"
            return no_answer.of(message, no_answer.NO_FUNCTION, reason)
        config = {"partition-id": client, "num-partitions": self.num_clients}
        context = flower.context(node, config, self._states.get(client, RecordDict()), self.run_config)

        own: list[object] = []

        def call() -> object:
            with rng.keyed_globals(draw):
                own.append(self.app(flower.delivered(message), context))
            return own[0]

        start = clock()
        reply = answered(message, call)
        seconds = clock() - start
        if not own or reply is not own[0]:
            return reply
        self._states[client] = flower.isolated(context.state)
        if reply.has_content():
            reply.content = flower.isolated(reply.content)
        if timeout is not None and seconds > timeout and not reply.has_error():
            late = f"no reply within {timeout:g} s: the client's call took {seconds:.1f} s"
            return no_answer.of(message, no_answer.LATE, late)
        if reply.has_content() and (why := _refusal(reply.content)):
            training = kind.partition(".")[0] == "train"
            return no_answer.of(message, CLIENT_ERROR if training else no_answer.NO_FUNCTION, why)
        if not reply.metadata.message_id:
            flower.set_message_id(reply, f"{message.metadata.message_id}r")
        return reply


def _refusal(content: RecordDict) -> str:
    """Why a reply of Flower's API before messages is no result, by its own status; "" where it is one."""
    for name in ("fitres.status", "evaluateres.status"):
        status: Any = content.get(name, {})
        if status.get("code", 0):
            return f"the client answers with status {status['code']} instead of a result: {status.get('message')}"
    return ""
