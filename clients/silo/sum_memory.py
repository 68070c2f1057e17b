"""The ordered sum through memory that the ranks of one machine share, in place of sockets: the same additions.

The memory is an anonymous file of Linux (memfd) and has no name: it is in no folder, runs cannot meet in it, and it is
gone with the last process that holds it, also where all are killed. It is reserved as it is made, so that a lack of
memory shows then. Ranks wait for each other at event counters (eventfd). A rank that waits for one that has died, or
hangs, is ended by their parent, which watches all of them.

Each rank writes the sums of its nodes of the tree. Then of two ranks each adds up all of them; of more, each adds up a
chunk, for all to read. Two halves of the memory take turns: a rank that is ahead writes into the other half, and two
steps ahead no rank can be.

Legend: P ranks, S shards, n numbers of a tensor.
"""

import errno
import mmap
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.sharded.shard_tree import Node, bounds

HALVES = 2
"""Parts of the memory, used in turn; also the event counters of a rank."""
CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux tells a container's limits."""
ALIGNED = 64
"""Bytes of which the memory of a tensor is a multiple."""


class SumMemory:
    """Memory for sums, and counters at which ranks wait; made by their parent, and used by the ranks.

    Parameters
    ----------
    handles : sequence of int
        As of ``reserved``: the file, and HALVES counters of each rank. Processes that are forked have them;
        others get them by ``pass_fds``.
    slots : int
        Tensors that one half holds.
    width : int
        n.
    dtype : torch.dtype
        Of the tensors.
    """

    def __init__(self, handles: Sequence[int], slots: int, width: int, dtype: torch.dtype) -> None:
        self.handles, self.slots, self.width, self.dtype = tuple(handles), slots, width, dtype

    @classmethod
    def reserved(cls, processes: int, slots: int, width: int, dtype: torch.dtype) -> "SumMemory":
        """New memory. Raises ConfigError where the system has too little of it, or of handles."""
        handles: list[int] = []
        memory = cls(handles, slots, width, dtype)
        try:
            if memory.size > available():  # the system would end processes to find it
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            handles.append(os.memfd_create("silo-sums"))
            os.posix_fallocate(handles[0], 0, memory.size)
            handles += [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(HALVES * processes)]
        except OSError as error:
            _close(handles)
            what = f"{memory.size} bytes of memory and {HALVES * processes} handles for the sums of the ranks"
            why = f"{what} cannot be had ({errno.errorcode.get(error.errno or 0, error.errno)}: {error.strerror})"
            raise ConfigError(f"silo.wire: {why}; use --silo.wire sockets") from error
        memory.handles = tuple(handles)
        return memory

    @property
    def size(self) -> int:
        """Bytes."""
        return HALVES * self.slots * self.stride

    @property
    def stride(self) -> int:
        """Bytes from one tensor to the next."""
        return -(-max(1, self.width * self.dtype.itemsize) // ALIGNED) * ALIGNED

    def close(self) -> None:
        """Give up the handles in this process; a second call has no effect."""
        handles, self.handles = self.handles, ()
        _close(handles)


class SharedSums:
    """One rank's view of the memory.

    Parameters
    ----------
    memory : SumMemory
        The group's.
    rank, processes : int
        Of this rank, and P, at least 2.

    Attributes
    ----------
    read : int
        Bytes that this rank read of what others wrote.
    """

    def __init__(self, memory: SumMemory, rank: int, processes: int) -> None:
        self.rank, self.processes, self.read = rank, processes, 0
        self._counters = [memory.handles[1 + half * processes :][:processes] for half in range(HALVES)]
        whole = mmap.mmap(memory.handles[0], memory.size)
        item, shape = memory.dtype.itemsize, (HALVES, memory.slots, memory.stride // memory.dtype.itemsize)
        assert memory.stride % item == 0
        self._halves = torch.frombuffer(whole, dtype=memory.dtype).view(shape)[:, :, : memory.width]
        self._half, self._meeting, self._places = 0, 0, dict[Node, Tensor]()

    def places(self, owned: Sequence[Sequence[Node]]) -> dict[Node, Tensor]:
        """Where the sum (n,) of each node belongs in this step; ``owned``: the nodes of each rank that have samples."""
        self._half = (self._half + 1) % HALVES
        every = [node for nodes in owned for node in nodes]
        assert len(every) <= self._halves.shape[1], "more nodes than the memory has room for"
        self._places = dict(zip(every, self._halves[self._half], strict=False))
        return self._places

    def total(self, owned: Sequence[Sequence[Node]], shards: int) -> Tensor:
        """(n,) the sum over all shards in the order of their tree, once each rank has written its nodes' sums.

        ``owned`` : as of ``places``, which came before; at least one node.
        """
        self.meet()
        places, n = self._places, self._halves.shape[2]
        others = sum(map(len, owned)) - len(owned[self.rank])
        if self.processes == 2:
            self.read += others * n * self._halves.element_size()
            return fresh(Node(0, shards), places)
        edges = bounds(n, self.processes)
        own = slice(edges[self.rank], edges[self.rank + 1])
        whole = places[next(iter(places))]
        whole[own].copy_(fresh(Node(0, shards), {node: x[own] for node, x in places.items()}))
        self.meet()
        self.read += ((others - 1) * (own.stop - own.start) + n) * self._halves.element_size()
        return whole.clone()

    def meet(self) -> None:
        """Wait until each rank has come here; what they wrote before is seen after."""
        counters, self._meeting = self._counters[self._meeting], (self._meeting + 1) % HALVES
        for rank, counter in enumerate(counters):
            if rank != self.rank:
                os.eventfd_write(counter, 1)
        missing = self.processes - 1
        while missing:
            missing -= os.eventfd_read(counters[self.rank])


def fresh(node: Node, known: Mapping[Node, Tensor]) -> Tensor:
    """The sum of ``shard_tree.summed`` below a node, in memory of its own, from the nodes ``known``.

    At least one of these is below it. A shard below none of them has no samples, and adds nothing.
    """
    found, own = _sum(node, known)
    assert found is not None
    return found if own else found.clone()


def _sum(node: Node, known: Mapping[Node, Tensor]) -> tuple[Tensor | None, bool]:
    """(sum, whether its memory is new)."""
    if node in known or node.last - node.first == 1:
        return known.get(node), False
    (left, own), (right, others) = (_sum(child, known) for child in node.children)
    if left is None or right is None:
        return (right, others) if left is None else (left, own)
    return (left.add_(right) if own else left + right), True


def most_nodes(processes: int, shards: int) -> int:
    """Nodes, at most, of which the ranks' parts of the tree consist, wherever the parts begin."""
    depth = (shards - 1).bit_length()
    return min(shards, (processes - 1) * depth + 1)


def available() -> float:
    """Bytes of memory that are free, for this machine and for this container of it; infinite where neither is known."""
    free = [float("inf")]
    with suppress(OSError, LookupError, ValueError):
        free.append(float(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024)
    with suppress(OSError, ValueError):  # "max" is no number: there is no limit
        limit, used = (float((CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used)
    return min(free)


def _close(handles: Sequence[int]) -> None:
    for handle in handles:
        with suppress(OSError):
            os.close(handle)
