"""Seconds and bytes of sums over processes, beside the library's ``all_reduce`` and the alpha-beta model, in turn.

    python -m experiments.bench.collectives [--processes 2,4] [--sizes 1,1000,100000,1000000] [--turns 5]

Sizes are numbers (float32). alpha (seconds a message) and beta (seconds a byte) are measured first, by one tensor that
goes to and fro between two ranks. Seconds are medians over the turns, of the slowest rank; all collectives take turns.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from clients.silo.collectives import Distributed, Wire, library, literal_loop, ordered_sum, ring, server, whole_pieces
from experiments.bench.ranks import on_ranks
from fl_sim import rng
from fl_sim.learning.sharded.shard_tree import subtrees

ITEM = 4
"""Bytes of a number."""
PINGS = 20
"""Round trips of one size by which alpha and beta are measured."""


def ordered(x: Tensor, wire: Wire) -> None:
    """The ordered sum of one shard a rank, in place."""
    owned = [subtrees(rank, rank + 1, wire.size) for rank in range(wire.size)]
    [node] = owned[wire.rank]
    total = ordered_sum(wire, {node: x.clone()}, owned, wire.size, x)
    if total is not None:
        x.copy_(total)


COLLECTIVES: dict[str, Callable[[Tensor, Wire], None]] = {
    "library": library,
    "ring": ring,
    "ordered": ordered,
    "server": server,
    "whole pieces": whole_pieces,
    "literal loop": literal_loop,
}


class Row(NamedTuple):
    """One collective at one size on one number of ranks."""

    processes: int
    size: int
    name: str
    seconds: float
    sent: int
    """Bytes that all ranks sent; 0: not counted."""
    off: float
    """Largest difference from the library's sum."""


class Link(NamedTuple):
    """The measured link between two ranks."""

    alpha: float
    beta: float


def theory(name: str, processes: int, size: int) -> int:
    """Bytes that all ranks send."""
    n, others = size * ITEM, processes - 1
    return {"whole pieces": processes * others * n, "literal loop": processes * others * n}.get(name, 2 * others * n)


def model(name: str, processes: int, size: int, link: Link) -> float:
    """Seconds by the alpha-beta model; an empty tensor is not sent."""
    n, others = size * ITEM, processes - 1
    if not n:
        return 0.0
    if name == "server":
        return 2 * others * (link.alpha + n * link.beta)
    if name in ("whole pieces", "literal loop"):
        return others * (link.alpha + n * link.beta)
    return 2 * others * (link.alpha + n / processes * link.beta)


def link(sizes: Sequence[int]) -> Link:
    """alpha and beta: the time of the smallest message, and what each byte of the largest takes beyond it."""
    wire, found = Distributed(), []
    for size in sizes:
        x, times = torch.zeros(size), []
        for _ in range(PINGS):
            dist.barrier()
            start = time.perf_counter()
            if wire.rank == 0:
                wire.exchange([(1, x)], [])
                wire.exchange([], [(1, x)])
            elif wire.rank == 1:
                wire.exchange([], [(0, x)])
                wire.exchange([(0, x)], [])
            times.append((time.perf_counter() - start) / 2)
        found.append(statistics.median(times))
    return Link(found[0], max(found[-1] - found[0], 0.0) / ((sizes[-1] - sizes[0]) * ITEM))


def measure(sizes: Sequence[int], turns: int) -> list[Row]:
    """All collectives at all sizes, in turn, on this rank's group; the rows are those of all ranks together."""
    wire, rows = Distributed(), []
    for size in sizes:
        times: dict[str, list[float]] = {name: [] for name in COLLECTIVES}
        sent, off = dict.fromkeys(COLLECTIVES, 0), dict.fromkeys(COLLECTIVES, 0.0)
        start = rng.uniform(rng.words(rng.key(0, "collectives", wire.rank)), (size,)) - 0.5
        right = start.clone()
        library(right, wire)
        for _, (name, collective) in itertools.product(range(turns), COLLECTIVES.items()):
            x, before = start.clone(), wire.sent
            dist.barrier()
            begun = time.perf_counter()
            collective(x, wire)
            slowest = torch.tensor([time.perf_counter() - begun], dtype=torch.float64)
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            counted = torch.tensor([wire.sent - before])
            dist.all_reduce(counted)
            times[name].append(float(slowest))
            sent[name], off[name] = int(counted), float((x - right).abs().max()) if size else 0.0
        rows += [Row(wire.size, size, n, statistics.median(t), sent[n], off[n]) for n, t in times.items()]
    return rows


def show(rows: Sequence[Row], links: Mapping[int, Link]) -> str:
    """The rows as a table in Markdown, with the model's seconds and the theory's bytes."""
    lines = [
        "| ranks | numbers | collective | ms | model ms | bytes | theory | off by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        seconds = model(row.name, row.processes, row.size, links[row.processes])
        counted = str(row.sent) if row.name != "library" else "-"
        numbers = f"{row.seconds * 1e3:.3f} | {seconds * 1e3:.3f} | {counted} | {theory(row.name, *row[:2])}"
        lines.append(f"| {row.processes} | {row.size} | {row.name} | {numbers} | {row.off:.2g} |")
    told = [f"{p} ranks: alpha {x.alpha * 1e6:.1f} us, beta {x.beta * 1e9:.3f} ns a byte" for p, x in links.items()]
    return "\n".join([*lines, "", *told, "The literal loop's sums are wrong from 3 ranks on: it is a negative."])


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.collectives", description=__doc__)
    parser.add_argument("--processes", default="2,4")
    parser.add_argument("--sizes", default="1,1000,100000,1000000")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args(argv)
    counts, sizes = ([int(x) for x in text.split(",")] for text in (given.processes, given.sizes))
    if min(counts) < 2 or min(sizes) < 0 or given.turns < 1:
        print(f"processes = {counts}, sizes = {sizes}, turns = {given.turns}: at least 2, 0 and 1", file=sys.stderr)
        return 2
    links = {count: on_ranks(count, link, [2, max(1000, *sizes)]) for count in counts}
    rows = [row for count in counts for row in on_ranks(count, measure, sizes, given.turns)]
    print(show(rows, links))
    return 0


if __name__ == "__main__":
    sys.exit(main())
