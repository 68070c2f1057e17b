"""From a block's plan to the block itself: the draws decide which samples each step uses.

Legend: S steps.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fl_sim.blocks.draws import finished_steps, streams_of, training_steps
from fl_sim.blocks.learner import Learner, local_settings
from fl_sim.blocks.plan import BlockPlan
from fl_sim.learning.rule import Draw, LocalRule, Sizes, Streams
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree


class Job(NamedTuple):
    """One client's part of a round, resolved from its message."""

    position: int
    """Index of the message in the round."""
    client: int
    sizes: Sizes
    streams: Streams
    draw: Draw
    state: Tree

    @property
    def steps(self) -> int:
        """S: its training steps."""
        return training_steps(self.streams)


@dataclass(frozen=True)
class Block:
    """Clients that train together: same rule, same numbers."""

    rule: LocalRule
    local: Local
    jobs: Sequence[Job]
    weighting: str


def resolve(plan: BlockPlan, learner: Learner) -> tuple[Block, dict[int, str]]:
    """The block itself: the draws decide which samples each client's steps use. And position -> traceback of clients that cannot.

    A straggler stops after its share of its training steps.
    """
    settings, jobs, failed = plan.settings, [], {}
    server_round, seed = int(settings.get("server-round", 0)), int(settings.get("seed", 0))
    rule, local = learner.rule(plan.message_type, settings), local_settings(settings, server_round)
    every = [Sizes(*learner.partition.sizes(order.client)) for order in plan.orders]
    draws = [Draw(seed, server_round, order.client) for order in plan.orders]
    together = streams_of(rule, every, local, draws)
    for c, (order, sizes, draw) in enumerate(zip(plan.orders, every, draws, strict=True)):
        try:
            streams = together[c] if c in together else rule.streams(sizes, local, draw)
            if order.work != 1.0 and "train" in streams:
                streams["train"] = streams["train"][: finished_steps(len(streams["train"]), order.work)]
            jobs.append(Job(order.position, order.client, sizes, streams, draw, plan.states.get(order.client, {})))
        except Exception:
            failed[order.position] = traceback.format_exc()
    return Block(rule, local, jobs, str(settings.get("weighting", "examples"))), failed
