"""How a batch is cut into shards, and the fixed binary tree in which what they give is summed.

The tree depends on the number of shards alone. Whoever owns all shards below a node can sum them alone, and send one
tensor; the sum has the same bits, whoever computed what.

Legend: N samples of a batch, S shards, P processes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Node(NamedTuple):
    """A node of the tree: the shards ``first`` to ``last - 1``."""

    first: int
    last: int

    @property
    def children(self) -> tuple["Node", "Node"]:
        """Both halves of a node of two shards or more; the first one has one shard more where they are odd."""
        middle = (self.first + self.last + 1) // 2
        return Node(self.first, middle), Node(middle, self.last)


def bounds(samples: int, shards: int) -> list[int]:
    """(S + 1,) where each shard of a batch of N samples begins, and N. Sizes differ by at most 1, larger ones first.

    Where there are fewer samples than shards, the last shards have none.
    """
    size, more = divmod(samples, shards)
    return [s * size + min(s, more) for s in range(shards + 1)]


def summed(node: Node, leaf: Callable[[int], Tensor | None], into: Tensor | None = None) -> Tensor | None:
    """The sum of what the shards below a node give, in the order of the tree; None where none of them gives anything.

    ``leaf`` : shard -> its tensor, which is written into; None for a shard without samples, which adds nothing.
    ``into`` : a tensor that gets the sum, and is returned; default: one of the tensors that ``leaf`` gave.
    """
    if node.last - node.first == 1:
        found = leaf(node.first)
    else:
        left, right = (summed(child, leaf) for child in node.children)
        if into is not None and left is not None and right is not None:
            return torch.add(left, right, out=into)
        found = added(left, right)
    return found if into is None or found is None else into.copy_(found)


def added(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """``left + right``, written into ``left``; the other one where one is None."""
    if left is None or right is None:
        return right if left is None else left
    return left.add_(right)


def subtrees(first: int, last: int, shards: int) -> list[Node]:
    """The largest nodes within the shards ``first`` to ``last - 1``, in order: what their owner can sum alone."""

    def within(node: Node) -> list[Node]:
        if first <= node.first and node.last <= last:
            return [node]
        if node.last <= first or last <= node.first:
            return []
        return [found for child in node.children for found in within(child)]

    return within(Node(0, shards)) if first < last else []


def joined(node: Node, parts: Callable[[Node], Tensor | None], known: Sequence[Node]) -> Tensor | None:
    """The sum of ``summed``, from the tensors of the nodes ``known``, which cover the shards below ``node``."""
    if node in known:
        return parts(node)
    left, right = node.children
    return added(joined(left, parts, known), joined(right, parts, known))
