"""The events of one exchange: failures, messages without a reply, replies that count nothing, numbers that are null."""

from collections.abc import Callable

from fl_sim.grids import no_answer
from fl_sim.grids.exchange import Exchange
from fl_sim.rounds import not_finite


def report(event: Callable[..., None], exchange: Exchange) -> None:
    """Record what happened in an exchange, besides good replies."""
    for client, reason in exchange.failures:
        event("client_failed", client=client, phase=exchange.phase, reason=reason)
    for client, code, reason in exchange.unanswered:
        if code in no_answer.EVENTS:  # whom virtual time leaves out has a row that says why, and is no event
            event(no_answer.EVENTS[code], client=client, phase=exchange.phase, reason=reason)
    for stray in exchange.strays:
        event("stray_reply", phase=exchange.phase, reason=stray)
    if exchange.zero:
        none = "their weight is 0, so that their replies count nothing"
        event("zero_weight", phase=exchange.phase, clients=exchange.zero, reason=none)
    if exchange.not_finite:
        not_finite.report_numbers(event, exchange)
