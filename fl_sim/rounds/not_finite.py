"""Numbers of an evaluation that are NaN or infinite: logs hold null in their place, and an event says so."""

import math
import re
from collections.abc import Callable, Mapping

from fl_sim.grids.exchange import Exchange

NUMBER = re.compile(r"(\S+) is (?:nan|-?inf)")
"""The reason of a client's failure whose number is not finite."""


def report(event: Callable[..., None], row: Mapping[str, object]) -> None:
    """Record the event ``not_finite`` with the columns of a round's line that are NaN or infinite, if there are any."""
    bad = {k: v for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    if bad:
        values = ", ".join(f"{k} = {v}" for k, v in bad.items())
        event("not_finite", columns=list(bad), reason=f"{values}: null in the log; the model's own numbers are finite")


def report_clients(event: Callable[..., None], exchange: Exchange) -> None:
    """The same for an evaluation on clients: a client whose numbers are not finite has failed, and no mean has it."""
    found = [(client, match[1]) for client, reason in exchange.failures if (match := NUMBER.fullmatch(reason))]
    if found:
        asked = ((node, client) for node, client in exchange.client_of.items() if node in exchange.unseen)
        whose = {client: "unseen" for _, client in asked}
        asked = ((node, client) for node, client in exchange.client_of.items() if node in exchange.validating)
        whose |= {client: "val_unseen" for _, client in asked}
        columns = dict.fromkeys(f"{whose.get(client, exchange.phase)}_{name}" for client, name in found)
        clients = list(dict.fromkeys(client for client, _ in found))
        what = f"NaN or infinity in the evaluation on {len(clients)} clients, which no mean contains"
        event("not_finite", columns=list(columns), clients=clients, reason=what)


def report_numbers(event: Callable[..., None], exchange: Exchange) -> None:
    """The same for numbers in good replies, which are null in the log; the clients have not failed."""
    clients = list(exchange.not_finite)
    columns = sorted({name for names in exchange.not_finite.values() for name in names})
    what = f"NaN or infinity in the numbers of {len(clients)} clients ({exchange.phase}): null in the log"
    event("not_finite", columns=columns, clients=clients, reason=what)
