"""The payload of a message or reply: named trees beside the model, such as control variates and their changes.

In messages each tree is an ArrayRecord of its own, ``payload.NAME``. Inside a process model and payload are one tree,
in which a leaf of the payload is named ``NAME::LEAF``: engines, pools and workers treat both alike.
"""

from collections.abc import Mapping
from typing import TypeVar

from flwr.app import ArrayRecord, RecordDict
from torch import Tensor

from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.pool import Pool

RECORD = "payload."
"""How the names of records that hold a payload begin."""
BETWEEN = "::"
"""Stands between the name of a tree and that of its leaf; it does not occur in a module's names."""

Leaf = TypeVar("Leaf")
Payload = Mapping[str, Mapping[str, Tensor]]
"""Tree by name."""


def join(model: Mapping[str, Tensor], payload: Payload) -> Tree:
    """Model and payload as one tree, the model first. Raises ValueError for a name that cannot be told apart again."""
    for name in payload:
        if not name.isidentifier():
            raise ValueError(f"the payload has the name {name!r}; it must be a name such as 'controls'")
    return {**model, **{f"{name}{BETWEEN}{k}": x for name, tree in payload.items() for k, x in tree.items()}}


def split(joined: Mapping[str, Tensor]) -> tuple[Tree, dict[str, Tree]]:
    """(the model, the payload) of one tree; empty trees of a payload are lost."""
    model: Tree = {}
    payload: dict[str, Tree] = {}
    for key, x in joined.items():
        name, between, leaf = key.partition(BETWEEN)
        if between:
            payload.setdefault(name, {})[leaf] = x
        else:
            model[key] = x
    return model, payload


def encode(joined: Mapping[str, Tensor]) -> dict[str, ArrayRecord]:
    """The records of a message: ``arrays`` with the model, and ``payload.NAME`` for each tree beside it."""
    model, payload = split(joined)
    own = {"arrays": records.encode(model)} if model or not payload else {}
    return {**own, **{RECORD + name: records.encode(tree) for name, tree in payload.items()}}


def records_of(content: RecordDict) -> dict[str, ArrayRecord]:
    """The records of arrays that belong together: the first one, which is the model, and the payload's."""
    found = records.of(content, ArrayRecord)
    first = next((name for name in found if not name.startswith(RECORD)), "")
    return {name: record for name, record in found.items() if name == first or name.startswith(RECORD)}


def identities(content: RecordDict) -> tuple[int, ...]:
    """Which records of arrays a message carries, as a key: a block's clients have got the same ones."""
    return tuple(map(id, records_of(content).values()))


def decode(found: Mapping[str, ArrayRecord]) -> Tree:
    """Records as ``records_of`` gives them as one tree. Raises as ``records.decode`` does."""
    return {k: x for name, record in found.items() for k, x in named(name, records.decode(record)).items()}


def named(record: str, leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The leaves of the record with the name ``record``, by their names in one tree."""
    if not record.startswith(RECORD):
        return dict(leaves)
    return {f"{record.removeprefix(RECORD)}{BETWEEN}{k}": x for k, x in leaves.items()}


class PayloadPool(Pool):
    """One pool for the model, and one for each tree beside it.

    Parameters
    ----------
    model : Pool
        Reduces the models of replies.
    trees : Mapping of str to Pool
        Reduces the payload's trees, by name.
    rest : Pool
        Reduces the payload's trees that ``trees`` does not name.
    """

    def __init__(self, model: Pool, trees: Mapping[str, Pool], rest: Pool) -> None:
        self.model, self.trees, self.rest = model, dict(trees), rest

    def _of(self, name: str) -> Pool:
        return self.trees.get(name, self.rest)

    def start(self, like: Tree) -> Tree:
        """The empty partials of all."""
        model, payload = split(like)
        return join(self.model.start(model), {name: self._of(name).start(tree) for name, tree in payload.items()})

    def add(self, partial: Tree, replies: Tree, weights: Tensor) -> Tree:
        """Take in each tree by its own pool."""
        (own, others), (model, payload) = split(partial), split(replies)
        added = {n: self._of(n).add(others.get(n, {}), tree, weights) for n, tree in payload.items()}
        return join(self.model.add(own, model, weights), added)

    def merge(self, a: Tree, b: Tree) -> Tree:
        """The partials of both."""
        (own, mine), (other, others) = split(a), split(b)
        names = dict.fromkeys([*mine, *others])
        merged = {n: self._of(n).merge(mine.get(n, {}), others.get(n, {})) for n in names}
        return join(self.model.merge(own, other), merged)

    def finish(self, partial: Tree, like: Tree) -> Tree:
        """The pooled model and trees."""
        (own, others), (model, payload) = split(partial), split(like)
        finished = {n: self._of(n).finish(others.get(n, {}), tree) for n, tree in payload.items()}
        return join(self.model.finish(own, model), finished)
