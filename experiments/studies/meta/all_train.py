"""pFedMe as its authors' code runs it: every user trains in each round, and the models of a few are averaged.

Dinh, Tran, Nguyen, NeurIPS 2020, arXiv:2006.08848, averages a sampled subset; in the authors' code all users
train in each round, so that each personal model is as new as the last one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fl_sim import rng
from strategies.base.round_replies import Received
from strategies.pfedme import PFedMe


@dataclass
class AllTrain(PFedMe):
    """The server averages ``averaged`` of the clients that train, drawn by the round's key."""

    averaged: Annotated[int, Ge(1)] = 5
    """Clients whose models are averaged; with the cohort 0 all others train too, for their own models alone."""
    one_reply_a_client = True

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The cohort's messages; notes whose replies will count."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        count = min(self.averaged, len(messages))
        chosen = rng.sample(rng.key(self.seed, "averaged", server_round), len(messages), count)
        self.counted = frozenset(messages[i].metadata.dst_node_id for i in chosen)
        return messages

    def _receive(self, received: Received, reply: Message) -> None:
        """Take in the reply of a client that counts; a block's pool, as a trial before the run makes, counts whole."""
        if reply.metadata.src_node_id in self.counted or "pool" in reply.content:
            super()._receive(received, reply)
