"""The silo of several processes: a client's round on a group of ranks, again from its start where one of them fails."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from clients.silo.rank_work import divided, tensors
from clients.silo.silo_group import RankFailed, SiloGroup
from clients.silo.silo_options import Silo
from fl_sim.blocks.client_silo import ClientSilo
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.resolve import Block, Job
from fl_sim.learning.loss import Loss
from fl_sim.tree import Tree

TRIES = 3
"""Times that a client's round begins before a rank that fails is the client's failure."""


class SiloFailed(RuntimeError):
    """A rank of a client's silo failed each time."""


class ManyProcesses(ClientSilo):
    """Trains a client on the ranks of a group, which starts with the first client and lives as long as the run."""

    def __init__(self, silo: Silo) -> None:
        self.silo, self.edges = silo, silo.edges()
        self.restarts, self.moves, self.bytes = 0, 0, 0
        self._group: SiloGroup | None = None
        self._loss: Loss | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the processes, which another process starts for itself."""
        return type(self), (self.silo,)

    def train(self, block: Block, job: Job, model: Tree, learner: Learner) -> tuple[Tree, Tree, Tree]:
        """One client's training. Raises SiloFailed where a rank failed each time that it was tried."""
        for attempt in range(1, TRIES + 1):
            try:
                answers = self._of(learner.loss).train(divided(block, job, model, learner, self.edges))
            except RankFailed as failed:
                self.close()
                self.restarts += 1
                self.on_event("silo_restarted", client=job.client, rank=failed.rank, reason=str(failed))
                if attempt == TRIES:
                    raise SiloFailed(f"the client's silo failed {TRIES} times; the last time {failed}") from None
            except BaseException:  # such as Ctrl-C, after which the ranks may be anywhere
                self.close()
                raise
            else:
                break
        parts, sums, paces, sent = zip(*answers, strict=True)
        if len(set(sums)) > 1:
            self.close()
            raise SiloFailed(f"the ranks of the client's silo ended with different models (checksums {sums})")
        self.bytes += sum(sent)
        if self.silo.balance:
            self._balance(paces)
        reply, state, metrics = (tensors(part, learner.loss.device) for part in parts[0])
        return reply, state, metrics

    def _of(self, loss: Loss) -> SiloGroup:
        """The group, with this loss."""
        if self._group is None or self._loss is not loss:
            self.close()
            self._loss = loss
            self._group = SiloGroup(self.silo, lambda rank: without_samples(loss, rank, self.silo.processes))
        return self._group

    def _balance(self, paces: Sequence[float]) -> None:
        """Move shards to ranks that take less time a sample; the next client's batches are divided so."""
        if min(paces) > 0 and (edges := balanced(paces, self.silo.shards)) != self.edges:
            self.edges, self.moves = edges, self.moves + 1

    def summary(self) -> dict[str, object]:
        """Processes, groups that were started again, moves of shards, and bytes that ranks sent to each other."""
        return {
            "silo": {
                "processes": self.silo.processes,
                "restarts": self.restarts,
                "moves": self.moves,
                "shares": [b - a for a, b in pairwise(self.edges)],
                "bytes": self.bytes,
            }
        }

    def close(self) -> None:
        """End the processes."""
        if self._group is not None:
            self._group.end()
        self._group = self._loss = None


def without_samples(loss: Loss, rank: int, processes: int) -> Loss:
    """The loss of one rank: with two samples of the task, by which it sees how the network computes, and no others.

    On several GPUs each rank has one of its own.
    """
    _ = loss.writes  # found once, on the task's samples
    own = copy.copy(loss)
    few = {k: v[:2].clone() for k, v in loss.task.train.items()}
    own.task = replace(loss.task, train=few, test={}, labels=None, clients=None, client_names=None)
    if loss.device.type == "cuda" and torch.cuda.device_count() >= processes:
        own = Loss(loss.training, own.task, loss.dtype, torch.device("cuda", rank), loss.precision)
    return own


def balanced(paces: Sequence[float], shards: int) -> list[int]:
    """(P + 1,) the first shard of each rank, and S, such that the slowest rank is done as early as possible.

    ``paces`` : seconds that each rank takes for a sample. Each rank keeps one shard; each of the others goes to the
    rank that is then done first.
    """
    counts = [1] * len(paces)
    for _ in range(shards - len(paces)):
        first = min(range(len(paces)), key=lambda r: (counts[r] + 1) * paces[r])
        counts[first] += 1
    return [sum(counts[:r]) for r in range(len(counts) + 1)]
