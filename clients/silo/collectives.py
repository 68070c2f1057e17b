"""Sums over the processes of a group by send and receive: the ring and the parameter server of the founding texts.

With n bytes on each of P ranks:

    ring               each rank sends and receives 2 n less two chunks of n / P: 2 (P - 1) n over all ranks
    parameter server   (P - 1) n into rank 0 and (P - 1) n out of it
    whole pieces       (P - 1) n a rank: each passes on what it received
    literal loop       the same bytes, and wrong sums from P = 3 on: it passes on its accumulator

The bits of a sum depend on the order of its terms: a ring adds a chunk's terms in the order of ranks, beginning with
another rank for each chunk. ``ordered_sum`` adds in the order of a tree that does not depend on P.

Legend: P ranks, n numbers of a tensor.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fl_sim.learning.sharded.shard_tree import Node, bounds, joined

Piece = tuple[int, Tensor]
"""(the other rank, a contiguous tensor that is sent to it, or is filled with what it sends)."""


class Wire(ABC):
    """What connects a rank with the others; counts the bytes that it sends."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.sent = rank, size, 0

    def exchange(self, sends: Sequence[Piece], receives: Sequence[Piece]) -> None:
        """Send and receive at once. Between two ranks, tensors arrive in the order in which they are sent."""
        self.sent += sum(x.numel() * x.element_size() for _, x in sends)
        self._exchange([p for p in sends if p[1].numel()], [p for p in receives if p[1].numel()])

    @abstractmethod
    def _exchange(self, sends: Sequence[Piece], receives: Sequence[Piece]) -> None:
        """The same, of tensors that are not empty."""


class Distributed(Wire):
    """The default group of ``torch.distributed``."""

    def __init__(self) -> None:
        super().__init__(dist.get_rank(), dist.get_world_size())

    def _exchange(self, sends: Sequence[Piece], receives: Sequence[Piece]) -> None:
        works = [dist.isend(x, to) for to, x in sends] + [dist.irecv(x, origin) for origin, x in receives]
        for work in works:
            if work is not None:
                work.wait()


def library(x: Tensor, wire: Wire) -> None:
    """``torch.distributed.all_reduce``, in place: the sum of x (n,) over all ranks. Its bytes are not counted."""
    dist.all_reduce(x)


def ring(x: Tensor, wire: Wire) -> None:
    """Ring all-reduce in place: reduce-scatter and all-gather of chunks, each passed to the next rank P - 1 times."""
    parts = _chunks(x, wire.size)
    right, left, room = (wire.rank + 1) % wire.size, (wire.rank - 1) % wire.size, torch.empty_like(parts[0])
    for step in range(wire.size - 1):
        mine, theirs = (parts[(wire.rank - step - back) % wire.size] for back in (0, 1))
        received = room[: len(theirs)]
        wire.exchange([(right, mine)], [(left, received)])
        theirs += received
    for step in range(wire.size - 1):
        mine, theirs = (parts[(wire.rank + 1 - step - back) % wire.size] for back in (0, 1))
        wire.exchange([(right, mine)], [(left, theirs)])


def server(x: Tensor, wire: Wire) -> None:
    """Parameter server in place: all push to rank 0, which adds in the order of ranks, and pull the sum from it."""
    if wire.rank:
        wire.exchange([(0, x)], [])
        wire.exchange([], [(0, x)])
        return
    others = [(rank, torch.empty_like(x)) for rank in range(1, wire.size)]
    wire.exchange([], others)
    for _, pushed in others:
        x += pushed
    wire.exchange([(rank, x) for rank, _ in others], [])


def whole_pieces(x: Tensor, wire: Wire) -> None:
    """In place: each passes on what it received, whole, P - 1 times, and adds it to its own. Right, and not cheap."""
    piece = x.clone()
    for _ in range(wire.size - 1):
        received = torch.empty_like(x)
        wire.exchange([((wire.rank + 1) % wire.size, piece)], [((wire.rank - 1) % wire.size, received)])
        x += received
        piece = received


def literal_loop(x: Tensor, wire: Wire) -> None:
    """The founding text's loop to the letter, kept as a negative: it passes on the accumulator, not what it received.

    Right for P = 2. From P = 3 on, numbers that an accumulator holds already are added again: after P - 1 passes rank
    r has the sum over k of binomial(P - 1, k) x[r - k].
    """
    for _ in range(wire.size - 1):
        received = torch.empty_like(x)
        wire.exchange([((wire.rank + 1) % wire.size, x)], [((wire.rank - 1) % wire.size, received)])
        x += received


def ordered_sum(
    wire: Wire, mine: Mapping[Node, Tensor], owned: Sequence[Sequence[Node]], shards: int, like: Tensor
) -> Tensor | None:
    """The sum over all shards in the order of their tree, on every rank, whoever owns which: the bits of one process.

    Each rank adds up one chunk of the numbers, and sends it to the others: with one node a rank the bytes of the ring.

    Parameters
    ----------
    mine : Mapping of Node to Tensor
        The sums (n,) of the nodes that this rank owns; they are written into.
    owned : sequence of sequences of Node
        The nodes of each rank that have samples.
    shards : int
        S.
    like : Tensor
        (n,) a tensor whose dtype and device the sum has.

    Returns
    -------
    Tensor or None
        (n,); None where no shard has samples.
    """
    known = [node for nodes in owned for node in nodes]
    if not known:
        return None
    total = torch.empty_like(like)
    places = _chunks(total, wire.size)
    edges = bounds(len(total), wire.size)
    own = slice(edges[wire.rank], edges[wire.rank + 1])
    others = [rank for rank in range(wire.size) if rank != wire.rank]
    received = {node: torch.empty_like(places[wire.rank]) for rank in others for node in owned[rank]}
    wire.exchange(
        [(rank, mine[node][edges[rank] : edges[rank + 1]]) for rank in others for node in owned[wire.rank]],
        [(rank, received[node]) for rank in others for node in owned[rank]],
    )

    def part(node: Node) -> Tensor | None:
        if node in received:
            return received[node]
        return mine[node][own] if node in mine else None

    chunk = joined(Node(0, shards), part, [*known, *_without(known, shards)])
    assert chunk is not None
    places[wire.rank].copy_(chunk)
    wire.exchange([(r, places[wire.rank]) for r in others], [(r, places[r]) for r in others])
    return total


def _without(known: Sequence[Node], shards: int) -> list[Node]:
    """Nodes for the shards that no known node covers, which have no samples."""
    covered = {shard for node in known for shard in range(*node)}
    return [Node(shard, shard + 1) for shard in range(shards) if shard not in covered]


def _chunks(x: Tensor, count: int) -> list[Tensor]:
    """x (n,) in ``count`` contiguous parts whose lengths differ by at most 1; views."""
    edges = bounds(len(x), count)
    return [x[edges[i] : edges[i + 1]] for i in range(count)]
