"""A round's messages as work in virtual time, and what is left of them when virtual time has closed the round.

Legend: n messages of the round.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fl_sim.blocks.draws import finished_steps
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import work_counter
from fl_sim.engines.coding import reply_bytes
from fl_sim.grids.messages import Arrays, Groups
from fl_sim.grids.virtual_time.clock import VirtualTime
from fl_sim.population.devices import Work
from fl_sim.tree import Tree
from fl_sim.wire import records

Orders = Sequence[tuple[int, int, Settings]]
"""(position of the message in the exchange, client id, settings) of messages that carry one model."""
Facts = dict[int, Mapping[str, float]]
"""Position of a message -> facts for its row in the log."""


def close_round(
    time: VirtualTime,
    groups: Groups,
    learner: Learner,
    received: Callable[[Arrays], Tree],
    sent: Callable[[int, int], int],
) -> tuple[dict[int, str], Facts]:
    """Let virtual time close a round of training: only messages whose work is used stay in ``groups``.

    ``received``: records -> the model with its payload as clients get it; ``sent``: as of ``work_of``. Returns
    (position of a message -> why its work is not used, position -> facts for the log).
    """
    training = {key: group for key, group in groups.items() if key[0] == "train"}
    work, positions = work_of([(*group, received(group[0])) for group in training.values()], learner, sent)
    outcome = time.close(work, launch_of(training.values()))
    shares = dict(zip(positions, outcome.shares.tolist(), strict=True))
    for key, (arrays, orders) in training.items():
        groups[key] = arrays, in_time(orders, shares)
    reasons = {positions[i]: why for i, why in outcome.reasons.items()}
    return reasons, dict(zip(positions, outcome.numbers, strict=True))


def work_of(
    groups: Iterable[tuple[Arrays, Orders, Tree]],
    learner: Learner,
    sent: Callable[[int, int], int] = lambda client, whole: whole,
) -> tuple[Work, list[int]]:
    """The work of n messages to train, and their positions, ascending.

    ``groups``: for each model its records, the orders, and the model with its payload as clients get it; ``sent``:
    (client, bytes of the records) -> bytes that are sent to the client.

    Samples are those in the batches that the rule draws; of a client that does a part of its steps, as large a part.
    """
    rows: list[tuple[int, ...]] = []
    for arrays, orders, received in groups:
        down, known = sum(map(records.num_bytes, arrays.values())), dict[int, Any]()
        for position, client, settings in orders:
            if id(settings) not in known:
                known[id(settings)] = (
                    work_counter(learner, "train", settings),
                    reply_bytes(learner, settings, received),
                )
            counter, up = known[id(settings)]
            whole, samples = counter(client)
            steps = finished_steps(whole, float(settings.get("system.work", 1.0)))
            rows.append((position, client, steps, samples * steps // max(whole, 1), sent(client, down), up))
    rows.sort()
    columns: Any = np.array(rows, np.int64).reshape(-1, 6).T
    return Work(*columns[1:]), columns[0].tolist()


def launch_of(groups: Iterable[tuple[Arrays, Orders]]) -> int:
    """The round of the messages, by which launches are drawn."""
    return next((int(settings.get("server-round", 0)) for _, orders in groups for *_, settings in orders), 0)


def in_time(orders: Orders, shares: Mapping[int, float]) -> list[tuple[int, int, Settings]]:
    """The messages whose work is used; a client that does a share of its steps gets that as ``system.work``.

    ``shares``: by position, 0 where the work is not used.
    """
    kept, partial = [], dict[tuple[int, float], Settings]()
    for position, client, settings in orders:
        share = shares[position]
        if 0 < share < 1:
            key = id(settings), share
            if key not in partial:
                partial[key] = {**settings, "system.work": share * float(settings.get("system.work", 1.0))}
            kept.append((position, client, partial[key]))
        elif share:
            kept.append((position, client, settings))
    return kept


def work_of_clients(learner: Learner, settings: Settings, down: int, up: int) -> Callable[[np.ndarray], Work]:
    """A function of client ids (n,): the work of a launch of each.

    ``settings``: of its message; ``down``, ``up``: bytes of the message and of the reply.
    """
    counter = work_counter(learner, "train", settings)

    def work(clients: np.ndarray) -> Work:
        steps, samples = np.array([counter(client) for client in clients.tolist()], np.int64).reshape(-1, 2).T
        return Work(clients, steps, samples, np.full(len(clients), down), np.full(len(clients), up))

    return work
