"""Messages without a reply for a reason that is no failure of a client: error replies that stay inside this process.

A grid of virtual clients gives such an error reply in place of one that does not come; the exchange counts it, and does
not pass it on.
"""

from collections.abc import Mapping

from flwr.app import Error, Message

LATE, NO_NODE, NO_FUNCTION, UNUSED = 10001, 10002, 10003, 10004
"""Codes: the client's call took longer than the timeout; no such node; the app has no function for such a message;
virtual time closed the round without the client."""
MOD_REFUSED = 6
"""Flower's own code: a mod of the ClientApp lacks what it needs, such as the clipping norm in a message to evaluate."""
NODE_UNAVAILABLE = 5
"""Flower's own code: the node is not connected, so that the message was not sent."""


class NoAnswer(Error):
    """An error that this process made: the code of one that came from a device never means any of these."""

    facts: Mapping[str, float] | None = None
    """What virtual time says of the client, for its row in the log."""


EVENTS = {LATE: "timeout", NO_NODE: "no_such_node", NO_FUNCTION: "no_function", MOD_REFUSED: "mod_refused"}
"""Code -> the event that records it."""


def of(message: Message, code: int, reason: str, facts: Mapping[str, float] | None = None) -> Message:
    """The error reply that stands for no answer to ``message``; ``facts``: for the client's row in the log."""
    error = NoAnswer(code, reason)
    error.facts = facts
    return Message(error, reply_to=message)


def facts_of(reply: Message) -> Mapping[str, float]:
    """The facts for the client's row that came with an answer of ``of``."""
    return (reply.error.facts or {}) if isinstance(reply.error, NoAnswer) else {}


def code_of(reply: Message) -> int:
    """The code where a reply stands for no answer, of a key of ``EVENTS``; 0 for all other replies."""
    if not reply.has_error():
        return 0
    code = int(reply.error.code)
    return code if isinstance(reply.error, NoAnswer) or code == MOD_REFUSED else 0


def excused(reply: Message, app_owned: bool, training: bool) -> bool:
    """Whether a reply stands for no answer, and is no failure of the client.

    A strategy must name nodes and functions that exist; an app that sends messages itself is told, as by Flower. A mod
    that refuses a message has failed in ``training`` alone, as Flower's mods for privacy refuse every evaluation.
    """
    code = code_of(reply)
    if code == MOD_REFUSED:
        return not training
    return code in (LATE, UNUSED) or (app_owned and code in EVENTS)


def not_sent(reply: Message) -> bool:
    """Whether the message never left the server, because there is no such node, or it is not connected."""
    return reply.has_error() and (code_of(reply) == NO_NODE or reply.error.code == NODE_UNAVAILABLE)
