"""One rank of a silo: a process that lives as long as the silo, and trains its part of each client's batches.

All ranks run the same local rule on the same model; ``loss.gradient`` computes the rank's shards, and the sum over all
ranks. So each rank takes the same steps, and the model is sent once a round.
"""

import ctypes
import os
import signal
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from clients.silo import collectives
from clients.silo.collectives import Distributed, Wire, ordered_sum
from clients.silo.rank_messages import post, receive
from clients.silo.rank_work import Work, arrays, batches, check_held, tensors
from clients.silo.silo_options import Silo
from clients.silo.sum_memory import SharedSums, SumMemory
from fl_sim import rng
from fl_sim.learning.loss import Loss
from fl_sim.learning.returned import call
from fl_sim.learning.sharded.shard_tree import Node, subtrees, summed
from fl_sim.learning.sharded.sharded_loss import Leaf, ShardedLoss
from fl_sim.tree import Tree

LOOK_S = 0.3
"""Seconds between two looks whether the parent lives."""
COMPUTES, WAITS = 0, 1
"""What a rank does at the moment, as its parent reads it."""
clock = time.perf_counter
"""Seconds, by which a rank measures its pace."""
TCPStore: Any = vars(dist)["TCPStore"]  # documented; the module does not list it for type checkers
PLAIN: dict[str, Callable[[Tensor, Wire], None]] = {
    "library": collectives.library,
    "ring": collectives.ring,
    "server": collectives.server,
}
"""The sums whose bits depend on the number of ranks, by the name of ``silo.reduce``."""


class Reducer:
    """Sums what the shards of a batch give over all ranks.

    Parameters
    ----------
    wire : Wire
        What connects the ranks.
    reduce : str
        As of ``silo.reduce``.
    edges : sequence of int
        (P + 1,) the first shard of each rank, and S.
    host : bool
        Whether tensors on a GPU are sent from the host's memory.
    beat : Callable
        Told COMPUTES or WAITS.
    sums : SharedSums, optional
        The memory through which ``ordered`` adds; default: it sends.
    """

    def __init__(
        self,
        wire: Wire,
        reduce: str,
        edges: Sequence[int],
        host: bool,
        beat: Callable[[int], None] = lambda doing: None,
        sums: SharedSums | None = None,
    ) -> None:
        self.wire, self.reduce, self.edges, self.host, self.beat = wire, reduce, edges, host, beat
        self.sums, self.shards, self.seconds, self.computed = sums, edges[-1], 0.0, 0
        self.owned = [subtrees(a, b, self.shards) for a, b in pairwise(edges)]

    def total(self, leaf: Leaf, weights: Sequence[int], like: Tensor) -> Tensor | None:
        """The sum over all shards, on each rank; None where no shard has samples."""
        start = clock()
        alive = [[node for node in nodes if any(weights[node.first : node.last])] for nodes in self.owned]
        places = self.sums.places(alive) if self.sums is not None else {}
        own = alive[self.wire.rank]
        mine = {node: x for node in own if (x := summed(node, leaf, places.get(node))) is not None}
        if self.host:
            mine = {node: x.cpu() for node, x in mine.items()}
        first, last = self.edges[self.wire.rank : self.wire.rank + 2]
        self.seconds += clock() - start
        self.computed += sum(weights[first:last])
        if not any(weights):
            return None
        self.beat(WAITS)
        if self.sums is not None:
            added = self.sums.total(alive, self.shards)
            self.beat(COMPUTES)
            return added
        room = torch.empty(like.shape, dtype=like.dtype, device="cpu" if self.host else like.device)
        if self.reduce == "ordered":
            found = ordered_sum(self.wire, mine, alive, self.shards, room)
        else:
            found = self._own(mine, room)
            PLAIN[self.reduce](found, self.wire)
        self.beat(COMPUTES)
        return None if found is None else found.to(like.device)

    def _own(self, mine: dict[Node, Tensor], room: Tensor) -> Tensor:
        """The sum of this rank's nodes; zeros where it has none."""
        total: Tensor | None = None
        for x in mine.values():
            total = x if total is None else total.add_(x)
        return room.zero_() if total is None else total


def trained(work: Work, rank: int, loss: ShardedLoss, reducer: Reducer) -> tuple[Tree, Tree, Tree]:
    """(reply, new state, metrics) of one client: the same on every rank."""
    check_held(work, rank)
    device = loss.device
    data, model = tensors(work.data, device), tensors(work.model, device)
    like = torch.empty(loss.width, dtype=loss.dtype, device=device)
    loss.total = lambda leaf, weights: reducer.total(leaf, weights, like)
    streams = {name: batches(stream, name, data, work.draw, device) for name, stream in work.streams.items()}
    with rng.keyed_globals(work.draw("globals")):
        return call(work.rule, model, tensors(work.state, device), streams, loss, work.local)


def serve(
    rank: int, connection: Connection, loss: Loss, silo: Silo, beats: np.ndarray, memory: SumMemory | None
) -> None:
    """Join the group and answer the parent's work until it sends none; ``beats`` (2,) is memory that it reads.

    ``memory`` : the group's, for sums; None: they are sent.

    Messages to the parent: ("port", number) of rank 0, ("ready", None), ("done", (answer, checksum, seconds a sample,
    bytes sent, or read of others)) and ("raised", traceback).
    """
    try:
        host = join(rank, connection, loss, silo)
        wire, sharded = Distributed(), ShardedLoss(loss, silo.shards)
        sums = SharedSums(memory, rank, silo.processes) if memory is not None else None

        def moved() -> int:
            return wire.sent + (sums.read if sums is not None else 0)

        _say(connection, "ready", None)
        while (work := receive(connection)) is not None:

            def beat(doing: int) -> None:
                beats[0] += 1
                beats[1] = doing

            beat(COMPUTES)
            reducer, before = Reducer(wire, silo.reduce, work.edges, host, beat, sums), moved()
            parts = [arrays(part) for part in trained(work, rank, sharded, reducer)]
            beat(WAITS)
            pace = reducer.seconds / reducer.computed if reducer.computed else 0.0
            answer = (parts if rank == 0 else None, checksum(parts), pace, moved() - before)
            _say(connection, "done", answer)
    except EOFError:  # the parent has ended
        return
    except BaseException:
        with suppress(OSError):
            _say(connection, "raised", traceback.format_exc())


def join(rank: int, connection: Connection, loss: Loss, silo: Silo) -> bool:
    """Join the group on the loopback interface, at a free port of rank 0; whether tensors are sent from the host.

    Raises what ``torch.distributed`` raises.
    """
    own_gpu = loss.device.type == "cuda" and torch.cuda.device_count() >= silo.processes
    backend = silo.backend if silo.backend != "auto" else "nccl" if own_gpu else "gloo"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if os.path.isdir("/sys/class/net/lo") else "lo0")
    limit = timedelta(seconds=2 * silo.timeout + 60)  # the parent is the first to see that a rank hangs
    if rank == 0:
        store = TCPStore("127.0.0.1", 0, silo.processes, True, limit, wait_for_workers=False)
        _say(connection, "port", store.port)
    else:
        store = TCPStore("127.0.0.1", int(receive(connection)), silo.processes, False, limit)
    dist.init_process_group(backend, store=store, rank=rank, world_size=silo.processes, timeout=limit)
    return backend == "gloo" and loss.device.type != "cpu"


def checksum(parts: Sequence[dict[str, Any]]) -> int:
    """A number that is equal where the arrays are, by which the parent sees that all ranks took the same steps."""
    found = 0
    for part in parts:
        for name, x in part.items():
            found = zlib.crc32(name.encode(), found)
            raw = x if isinstance(x, np.ndarray) else x.view(torch.uint8).numpy()
            found = zlib.crc32(np.ascontiguousarray(raw).data, found)
    return found


def _say(connection: Connection, kind: str, what: object) -> None:
    post(connection, (kind, what))


def live_with(parent: int, at_once: bool) -> None:
    """End this process with its parent, whatever ends that; Ctrl-C in a terminal is for the parent.

    ``at_once`` : by Linux, which counts the parent's thread as the parent, so that this must be its main thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if at_once:
        with suppress(OSError, AttributeError):  # only Linux has it
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    def look() -> NoReturn:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    threading.Thread(target=look, daemon=True).start()
