"""What a local rule returns: (reply, new state, metrics), each tensors by name; refused by name where it is not."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fl_sim.tree import Tree

PARTS = ("reply", "new state", "metrics")


def trees(result: Any) -> tuple[Tree, Tree, Tree]:
    """The three parts of a rule's result. Runs under ``vmap`` too, where it sees one client's tensors.

    Raises TypeError that names the part, the entry and its type: an error in a client's code is that client's failure.
    """
    if not isinstance(result, tuple | list) or len(result) != 3:
        raise TypeError(f"local_update returned {_kind(result)}; it must return (reply, new state, metrics)")
    reply, state, metrics = (
        checked(f"the {what} of local_update", part) for what, part in zip(PARTS, result, strict=True)
    )
    return reply, state, metrics


def checked(what: str, part: Any) -> Tree:
    """``part``, which must be a tree. Raises TypeError that names it (``what``), the entry and its type."""
    if not isinstance(part, Mapping):
        cure = "; {} keeps the state that the client has" if "state" in what else ""
        raise TypeError(f"{what} is {_kind(part)}; it must be tensors by name{cure}")
    for name, x in part.items():
        if not isinstance(name, str):
            raise TypeError(f"{what} has the name {name!r}; names must be text")
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} in {what} is {_kind(x)}; it must be a tensor, such as torch.as_tensor gives")
        if x.layout != torch.strided or x.is_quantized:
            form = "quantized" if x.is_quantized else f"of the layout {x.layout}"
            raise TypeError(f"{name} in {what} is {form}; it must be an ordinary tensor")
    return part  # type: ignore[return-value]


def _kind(x: object) -> str:
    if isinstance(x, tuple | list):
        return f"a {type(x).__name__} of {len(x)}"
    return "None" if x is None else f"of type {type(x).__name__}"
