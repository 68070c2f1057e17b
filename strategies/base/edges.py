"""Edges between clients and server, in one level or several: who belongs to whom, what each edge has, when levels pool.

Level 0 is next to the clients, and the server stands above the last level. A node without a model of its own has that
of the node above it, which is how all get the pooled model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import mul

import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool

WEIGHTS = "weights"
"""The tree of a server's state that holds the weights of each level's nodes."""


@dataclass(frozen=True)
class Levels:
    """The form of a hierarchy."""

    sizes: tuple[int, ...]
    """Nodes on each level."""
    periods: tuple[int, ...]
    """Rounds between two poolings of each level by the one above it."""

    @classmethod
    def parse(cls, edges: int | str, every: int | str) -> "Levels":
        """Levels from numbers or lists such as ``20,4`` and ``5,2``.

        A number of ``every`` counts poolings of the level below, the first one rounds. Raises ValueError.
        """
        sizes, counts = _whole("edges", edges), _whole("every", every)
        if len(sizes) != len(counts):
            what = f"{len(sizes)} levels, and strategy.every = {every!r} has {len(counts)}; give one number for each"
            raise ValueError(f"strategy.edges = {edges!r}: {what}")
        if any(above > below for below, above in pairwise(sizes)):
            what = "a level has more nodes than the one below it; give the lowest level first, as 20,4"
            raise ValueError(f"strategy.edges = {edges!r}: {what}")
        return cls(sizes, tuple(accumulate(counts, mul)))

    def edge_of(self, seed: int, client: int) -> int:
        """The edge of a client, fixed for all rounds: each E clients in a row belong to E different edges, by a key."""
        group, place = divmod(client, self.sizes[0])
        return int(rng.permutation(rng.key(seed, "edge", group), self.sizes[0])[place])

    def above(self, level: int, node: int) -> int:
        """The node of the next level to which a node belongs; above the last one it is 0, the server."""
        return node % self.sizes[level + 1] if level + 1 < len(self.sizes) else 0


def _whole(name: str, given: int | str) -> tuple[int, ...]:
    parts = [part.strip() for part in str(given).split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 2**31 for part in parts):
        cure = "must be a whole number from 1 on, or several from the lowest level upwards, as 20,4"
        raise ValueError(f"strategy.{name} = {given!r}: {cure}")
    return tuple(map(int, parts))


@dataclass
class Edges:
    """What the nodes have between two poolings by the server."""

    levels: Levels
    top: Tree
    """The server's model: that of its last pooling."""
    models: dict[tuple[int, int], Tree] = field(default_factory=dict)
    """(level, node) -> its model, of the nodes that have one of their own."""
    weights: list[Tensor] = field(default_factory=list)
    """Of each level: its nodes' weights of what was pooled since the level above pooled them, float64."""
    up: int = 0
    down: int = 0
    """Models that were sent upwards and downwards to get here."""

    def __post_init__(self) -> None:
        self.weights = self.weights or [torch.zeros(n, dtype=torch.float64) for n in self.levels.sizes]

    def model(self, level: int, node: int) -> Tree:
        """The model of a node."""
        while level < len(self.levels.sizes) and (level, node) not in self.models:
            level, node = level + 1, self.levels.above(level, node)
        return self.models.get((level, node), self.top)

    def pooled(self, pool: Pool, due: Callable[[int], bool]) -> "Edges":
        """What the nodes have once each level that is ``due`` was pooled, the lowest first.

        ``due(period)`` says so for a level by its number of rounds between poolings. A node pools those below it that
        have a weight, and all below it get the model; a node above none with a weight keeps its own.
        """
        new = Edges(self.levels, self.top, dict(self.models), [w.clone() for w in self.weights], self.up, self.down)
        for level, period in enumerate(self.levels.periods):
            if not due(period):
                break
            members: dict[int, list[int]] = {}
            for node in new.weights[level].nonzero().flatten().tolist():
                members.setdefault(self.levels.above(level, node), []).append(node)
            pools = {k: new._pooled(pool, level, nodes) for k, nodes in members.items()}
            for above, nodes in members.items():
                if level + 1 < len(self.levels.sizes):
                    new.models[level + 1, above] = pools[above]
                    new.weights[level + 1][above] += new.weights[level][nodes].sum()
                else:
                    new.top = pools[above]
            new.up, new.down = new.up + sum(map(len, members.values())), new.down + self.levels.sizes[level]
            new.models = {k: x for k, x in new.models.items() if k[0] > level}
            new.weights[level] = torch.zeros_like(new.weights[level])
        return new

    def _pooled(self, pool: Pool, level: int, nodes: list[int]) -> Tree:
        models = [self.model(level, node) for node in nodes]
        partial = pool.start(models[0])
        for node, model in zip(nodes, models, strict=True):
            partial = pool.add(partial, {k: x[None] for k, x in model.items()}, self.weights[level][[node]])
        return pool.finish(partial, models[0])

    def state(self) -> Mapping[str, Tree]:
        """All of it as a strategy's ``server_state``; empty where all nodes have the server's model and no weight."""
        if not self.models and not any(bool(w.any()) for w in self.weights):
            return {}
        named = {f"{level}.{node}": x for (level, node), x in self.models.items()}
        return {"top": self.top, WEIGHTS: {str(n): w for n, w in enumerate(self.weights)}, **named}

    @classmethod
    def of(cls, levels: Levels, state: Mapping[str, Tree], model: Tree) -> "Edges":
        """What ``state`` says; where it is empty, all nodes have ``model``."""
        if not state:
            return cls(levels, model)
        models = {
            (int(level), int(node)): x for name, x in state.items() for level, _, node in [name.partition(".")] if node
        }
        return cls(levels, state["top"], models, list(state[WEIGHTS].values()))
