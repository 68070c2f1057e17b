"""Sums over ranks by send and receive: values, bits and bytes, on ranks that are threads of this process."""

import itertools
import queue
import threading
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from clients.silo.collectives import Piece, Wire, literal_loop, ordered_sum, ring, server, whole_pieces
from fl_sim.learning.sharded.shard_tree import Node, bounds, subtrees, summed

Mail = dict[tuple[int, int], "queue.Queue[Tensor]"]


class Threads(Wire):
    """Ranks that are threads; what is sent waits in a queue for each pair of ranks."""

    def __init__(self, rank: int, size: int, mail: Mail) -> None:
        super().__init__(rank, size)
        self.mail = mail

    def _exchange(self, sends: Sequence[Piece], receives: Sequence[Piece]) -> None:
        for to, x in sends:
            self.mail[self.rank, to].put(x.clone())
        for origin, x in receives:
            x.copy_(self.mail[origin, self.rank].get(timeout=20))


def on_ranks(size: int, work: Callable[[Wire], Tensor | None]) -> tuple[list[Tensor | None], list[int]]:
    """(what each rank has in the end, bytes that each sent)."""
    mail: Mail = {pair: queue.Queue() for pair in itertools.product(range(size), repeat=2)}
    wires, found = [Threads(rank, size, mail) for rank in range(size)], [None] * size

    def run(rank: int) -> None:
        found[rank] = work(wires[rank])  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(found), [wire.sent for wire in wires]


def numbers(size: int, n: int) -> Tensor:
    return torch.randn(size, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def in_place(
    size: int, n: int, collective: Callable[[Tensor, Wire], None], start: Tensor | None = None
) -> tuple[Tensor, list[int]]:
    """(P, n) what each rank has after a collective of ``start`` (default: ``numbers``), and the bytes of each."""

    def work(wire: Wire) -> Tensor:
        x = (numbers(size, n) if start is None else start)[wire.rank].clone()
        collective(x, wire)
        return x

    found, sent = on_ranks(size, work)
    return torch.stack([x for x in found if x is not None]), sent


SIZES = [(1, 5), (2, 0), (2, 1), (3, 2), (4, 3), (4, 13), (4, 30), (3, 12)]
"""(P, n): no number, one, fewer than ranks, primes, not divisible by P, divisible."""


@pytest.mark.parametrize(("size", "n"), SIZES)
def test_ring_and_server_give_the_sum_at_their_bytes(size: int, n: int) -> None:
    """Over all ranks 2 (P - 1) n; of the ring a rank 2 n less two chunks, of the server rank 0 sends one half."""
    total = numbers(size, n).sum(0)
    for collective in (ring, server):
        found, sent = in_place(size, n, collective)
        torch.testing.assert_close(found, total.expand(size, n), rtol=1e-12, atol=1e-12)
        assert sum(sent) == 2 * (size - 1) * n * 8
        assert all(torch.equal(x, found[0]) for x in found)
    if size > 1:
        chunks = [b - a for a, b in itertools.pairwise(bounds(n, size))]
        _, sent = in_place(size, n, ring)
        assert sent == [8 * (2 * n - chunks[(r + 1) % size] - chunks[(r + 2) % size]) for r in range(size)]
        assert in_place(size, n, server)[1][0] == (size - 1) * n * 8


def test_whole_pieces_cost_more_and_the_literal_loop_is_wrong_from_three_ranks_on() -> None:
    """After P - 1 passes of its accumulator, rank r has sum_k binomial(P - 1, k) x[r - k]."""
    x = numbers(4, 5)
    found, sent = in_place(4, 5, whole_pieces)
    torch.testing.assert_close(found, x.sum(0).expand(4, 5))
    assert sent == [3 * 5 * 8] * 4
    wrong, _ = in_place(4, 5, literal_loop)
    for rank in range(4):
        expected = x[rank] + 3 * x[rank - 1] + 3 * x[rank - 2] + x[rank - 3]
        torch.testing.assert_close(wrong[rank], expected)
    assert float((wrong - found).abs().max()) > 0.1
    torch.testing.assert_close(in_place(2, 5, literal_loop)[0], numbers(2, 5).sum(0).expand(2, 5))


def test_a_rings_order_changes_a_third_of_the_bits_and_the_trees_does_not() -> None:
    """Elements of float32 sums with other bits than the tree's: .35 by the ring, .30 in the order of ranks.

    The ring's differ from those in the order of ranks in .32: a quarter of its chunks begins with rank 0, as that does.
    """
    x = numbers(4, 20_000).float()
    tree = summed(Node(0, 4), lambda s: x[s].clone())
    assert tree is not None
    owned = [subtrees(r, r + 1, 4) for r in range(4)]

    def ordered(x: Tensor, wire: Wire) -> None:
        found = ordered_sum(wire, {owned[wire.rank][0]: x.clone()}, owned, 4, x)
        assert found is not None
        x.copy_(found)

    for collective, share in ((ring, 0.35), (server, 0.30), (ordered, 0.0)):
        found, _ = in_place(4, 20_000, collective, x)
        assert float((found[0] != tree).double().mean()) == pytest.approx(share, abs=0.01)
        torch.testing.assert_close(found[0], tree, rtol=0, atol=1e-5)
    (by_ring, _), (by_ranks, _) = (in_place(4, 20_000, collective, x) for collective in (ring, server))
    other = (by_ring[0] != by_ranks[0]).double()
    assert float(other.mean()) == pytest.approx(0.32, abs=0.01) and float(other[:5_000].sum()) == 0


@pytest.mark.parametrize(
    "edges", [[0, 4], [0, 2, 4], [0, 3, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 5], [0, 3, 4, 8]]
)
@pytest.mark.parametrize("without", [(), (3,), (0, 1)])
def test_the_ordered_sum_has_one_processs_bits_whoever_owns_what(edges: list[int], without: tuple[int, ...]) -> None:
    shards, size, n = edges[-1], len(edges) - 1, 7
    x = numbers(shards, n)

    def leaf(shard: int) -> Tensor | None:
        return None if shard in without else x[shard].clone()

    owned = [
        [node for node in subtrees(a, b, shards) if any(s not in without for s in range(*node))]
        for a, b in itertools.pairwise(edges)
    ]

    def work(wire: Wire) -> Tensor | None:
        mine = {node: total for node in owned[wire.rank] if (total := summed(node, leaf)) is not None}
        return ordered_sum(wire, mine, owned, shards, torch.empty(n, dtype=torch.float64))

    found, sent = on_ranks(size, work)
    expected = summed(Node(0, shards), leaf)
    assert expected is not None and all(one is not None and torch.equal(one, expected) for one in found)
    if shards == 4 and size in (1, 2, 4) and not without and edges != [0, 3, 4]:
        assert sum(sent) == 2 * (size - 1) * n * 8  # the ring's


def test_an_ordered_sum_of_nothing_is_nothing() -> None:
    assert on_ranks(2, lambda wire: ordered_sum(wire, {}, [[], []], 4, torch.empty(3)))[0] == [None, None]
