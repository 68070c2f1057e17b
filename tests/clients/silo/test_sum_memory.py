"""The ordered sum through shared memory: the bits and bytes of sockets, on ranks that are threads or processes."""

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clients.silo import sum_memory
from clients.silo.silo_options import Silo, has_shared_memory
from clients.silo.sum_memory import SharedSums, SumMemory, most_nodes
from fl_sim.errors import ConfigError
from fl_sim.learning.sharded.shard_tree import Node, subtrees, summed

pytestmark = pytest.mark.skipif(not has_shared_memory(), reason="only Linux has the memory")


class Late(SharedSums):
    """A rank that is always late to read what it waited for."""

    def meet(self) -> None:
        """Wait, and then some more."""
        super().meet()
        time.sleep(0.002)


def numbers(step: int, shards: int, n: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shards, n, generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(dtype)


@contextmanager
def memory_of(*given: Any) -> Iterator[SumMemory]:
    memory = SumMemory.reserved(*given)
    try:
        yield memory
    finally:
        memory.close()


def on_ranks(size: int, memory: SumMemory, work: Callable[[SharedSums], object]) -> list[SharedSums]:
    """The ranks, which are threads, after each did its work; the last one is late."""
    ranks = [(Late if rank == size - 1 else SharedSums)(memory, rank, size) for rank in range(size)]
    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a rank waits for ever"
    return ranks


def owned(edges: Sequence[int], without: Sequence[int] = ()) -> list[list[Node]]:
    """The nodes of each rank that have samples, where the shards ``without`` have none."""
    nodes = [subtrees(a, b, edges[-1]) for a, b in itertools.pairwise(edges)]
    return [[node for node in own if any(s not in without for s in range(*node))] for own in nodes]


@pytest.mark.parametrize("edges", [[0, 2, 4], [0, 3, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 5], [0, 3, 4, 8]])
@pytest.mark.parametrize(
    ("n", "dtype"), [(0, torch.float32), (1, torch.float64), (3, torch.float32), (37, torch.float64)]
)
def test_the_sum_has_one_processs_bits_whoever_owns_what(edges: list[int], n: int, dtype: torch.dtype) -> None:
    """Steps in which all shards have samples, in turn with steps in which only some have, and a rank that is late."""
    shards, size = edges[-1], len(edges) - 1
    without: list[Sequence[int]] = [(), (shards - 1,), (), range(1, shards), (), ()]
    steps, found = [owned(edges, none) for none in without], dict[tuple[int, int], Tensor]()

    def leaf(step: int, shard: int) -> Tensor | None:
        return None if shard in without[step] else numbers(step, shards, n, dtype)[shard].clone()

    def work(rank: SharedSums) -> None:
        for step, own in enumerate(steps):
            places = rank.places(own)
            for node in own[rank.rank]:
                summed(node, lambda shard, step=step: leaf(step, shard), places[node])  # type: ignore[misc]
            found[step, rank.rank] = rank.total(own, shards)

    with memory_of(size, sum(map(len, owned(edges))), n, dtype) as memory:
        on_ranks(size, memory, work)
    for step in range(len(steps)):
        expected = summed(Node(0, shards), lambda shard, step=step: leaf(step, shard))  # type: ignore[misc]
        assert expected is not None and expected.dtype == dtype
        assert all(torch.equal(found[step, rank], expected) for rank in range(size)), step


@pytest.mark.parametrize("size", [2, 4])
def test_the_bytes_are_the_rings(size: int) -> None:
    own = owned(list(range(0, 5, 4 // size)))

    def work(rank: SharedSums) -> None:
        rank.places(own)
        rank.total(own, 4)

    with memory_of(size, size, 30, torch.float64) as memory:
        assert sum(rank.read for rank in on_ranks(size, memory, work)) == 2 * (size - 1) * 30 * 8


def test_no_result_is_memory_that_later_steps_write() -> None:
    """A rule may keep a gradient; also the sum of a single node is the rank's own."""
    kept: list[Tensor] = []

    def work(rank: SharedSums) -> None:
        for step in range(3):
            place = rank.places([[Node(0, 2)], []])[Node(0, 2)]
            if rank.rank == 0:
                place[:] = step
            kept.append(rank.total([[Node(0, 2)], []], 2))

    with memory_of(2, 2, 4, torch.float32) as memory:
        on_ranks(2, memory, work)
    assert sorted(x.tolist() for x in kept) == [[float(step)] * 4 for step in (0, 0, 1, 1, 2, 2)]


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 5, 7, 8])
def test_room_for_every_way_to_divide_the_shards(shards: int) -> None:
    """All of them are tried."""
    for size in range(1, shards + 1):
        every = [[0, *cuts, shards] for cuts in itertools.combinations(range(1, shards), size - 1)]
        assert max(sum(map(len, owned(edges))) for edges in every) <= most_nodes(size, shards) <= shards


@pytest.mark.parametrize("where", ["posix_fallocate", "eventfd", "memfd_create"])
def test_too_little_memory_or_too_few_handles_are_an_error_that_leaves_none(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, where, full)
    with pytest.raises(ConfigError, match="silo.wire: 1024 bytes .*ENOSPC.*; use --silo.wire sockets"):
        SumMemory.reserved(2, 2, 60, torch.float32)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_no_machine_has_is_not_even_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="ENOMEM"):
        SumMemory.reserved(2, 4, 1 << 50, torch.float32)
    monkeypatch.setattr(sum_memory, "CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    assert sum_memory.available() == 1000
    with pytest.raises(ConfigError, match="1024 bytes"):
        SumMemory.reserved(2, 2, 60, torch.float32)
    (tmp_path / "memory.max").write_text("max\n")
    assert 1000 < sum_memory.available() < 1 << 50


def test_the_wire_is_chosen_by_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert Silo(2).in_memory(cpu) and Silo(2, wire="memory").in_memory(cpu)
    others = [Silo(1), Silo(2, wire="sockets"), Silo(2, reduce="ring"), Silo(2, reduce="library")]
    assert not any(silo.in_memory(cpu) for silo in others) and not Silo(2).in_memory(gpu)
    with pytest.raises(ConfigError, match="silo.wire = 'memory': silo.reduce = 'ring'"):
        Silo(2, wire="memory", reduce="ring").check("loop", 0.0)
    with pytest.raises(ConfigError, match="silo.wire = 'memory': .*device = 'cuda'.*; use sockets"):
        Silo(2, wire="memory").check_device(gpu)
    Silo(2, wire="memory").check_device(cpu)
    monkeypatch.delattr(os, "memfd_create")
    assert not Silo(2).in_memory(cpu)
    with pytest.raises(ConfigError, match="under Linux"):
        Silo(2, wire="memory").check_device(cpu)
