"""A wave: clients that train together though each started at a time of its own, from the model that there was then.

Its blocks are cut as those of a round. What differs by launch (the start model, the learning rate by schedule, the key
of draws) is batched beside the clients, so that as few blocks are run as where all start together.

Legend: V models of a wave, C clients of a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from fl_sim import tree
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import BlockPlan, Launch, Order, plan_blocks
from fl_sim.tree import Tree

BY_LAUNCH = ("server-round", "launch")
"""The settings of a message that differ between the clients of a block."""
AGAIN = 2**32
"""A second launch of a client after one server step draws as in a round that is later by this number."""


def launch_of(settings: Settings, start: int) -> Launch:
    """What a message's settings say of its launch; ``start``: index of its model in the wave's.

    ``launch`` counts the launches of the client after the same server step: 0, or missing, for the first one.
    """
    server_round = int(settings.get("server-round", 0))
    return Launch(start, server_round, server_round + AGAIN * int(settings.get("launch", 0)))


def plan_wave(
    learner: Learner,
    orders: Sequence[tuple[int, Settings, int]],
    states: Mapping[int, Tree],
    block_size: int,
    first: int = 0,
) -> list[BlockPlan]:
    """Cut a wave into blocks: a pure function of ``orders``, ``states`` and ``block_size``.

    Parameters
    ----------
    learner : Learner
        Finds the rule and the sizes of clients.
    orders : Sequence[tuple[int, Settings, int]]
        (client id, settings of its message, index of its start model) in the order in which the clients started. No
        client may occur twice, because the second launch needs the state that the first one returns.
    states : Mapping[int, Tree]
        Client id -> state.
    block_size : int
        Clients of a block at most.
    first : int (default: 0)
        The number of the first block.
    """
    launches = [launch_of(settings, start) for _, settings, start in orders]
    shared: dict[tuple[object, ...], Settings] = {}  # one object for equal settings: they are grouped faster
    rest_of: dict[int, Settings] = {}
    for _, settings, _ in orders:
        if id(settings) not in rest_of:
            rest = {k: v for k, v in settings.items() if k not in BY_LAUNCH}
            rest_of[id(settings)] = shared.setdefault(tuple(rest.items()), rest)
    plain = [(position, client, rest_of[id(settings)]) for position, (client, settings, _) in enumerate(orders)]
    plans = plan_blocks(learner, "train", plain, states, block_size, first)

    def launched(order: Order) -> Order:
        return Order(order.position, order.client, order.steps, order.work, launches[order.position])

    return [replace(plan, orders=[launched(order) for order in plan.orders]) for plan in plans]


def model_of(models: Tree, launch: Launch | None) -> Tree:
    """The model from which a client starts: ``models`` itself, or where clients started apart its part of (V, ...)."""
    return models if launch is None else tree.take(models, launch.start)


def models_of(models: Tree, launches: Sequence[Launch | None]) -> tuple[Tree, int | None]:
    """(the models from which clients start, their leading axis): (C, ...) and 0, or one model for all and None."""
    starts = [launch.start for launch in launches if launch is not None]
    if len({*starts}) <= 1:
        return model_of(models, launches[0] if launches else None), None
    device = next(iter(models.values())).device if models else None
    index = torch.tensor(starts, device=device)
    return {k: x.index_select(0, index) for k, x in models.items()}, 0
