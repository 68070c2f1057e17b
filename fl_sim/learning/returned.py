"""Calls a local rule, whose result is tensors by name; refused by name where it is not."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.networks import home_leaves
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire import payload

PARTS = ("reply", "new state", "metrics")


def call(
    rule: LocalRule, received: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
) -> tuple[Tree, Tree, Tree]:
    """(reply, new state, metrics) of one client.

    ``received`` and the reply are model and payload as one tree, as in ``fl_sim.wire.payload``. Leaves that stay with
    the client (``rule.home``) are taken from ``state``, and are part of the new state, not of the reply. Raises what
    the rule raises, TypeError as ``trees`` does, and ValueError for such a leaf that the reply lacks.
    """
    model, beside = payload.split(received)
    if not (names := home_leaves.names_of(rule, loss)):
        return trees(rule.payload_update(model, beside, state, batches, loss, local))
    own, home = home_leaves.of_client(state, names)
    before = home_leaves.whole(model, home, loss)
    reply, new, metrics = trees(rule.payload_update(before, beside, own, batches, loss, local))
    if rule.reply_kind == "none":  # an evaluation, which changes no state
        return reply, new, metrics
    shared, home = home_leaves.taken_out(reply, names, before, loss)
    return shared, home_leaves.with_home(new or own, home), metrics


def reply_form(rule: LocalRule, received: Tree, loss: Loss) -> Tree:
    """What a reply to ``received`` looks like: the model without what stays at home, and the payload of ``rule.up``."""
    home = home_leaves.names_of(rule, loss)
    model = {k: x for k, x in received.items() if payload.BETWEEN not in k and k not in home}
    return payload.join(model, rule.up({k: model[k] for k in loss.trainable if k not in home}))


def trees(result: Any) -> tuple[Tree, Tree, Tree]:
    """The three parts of a rule's result, with the payload in the reply.

    Runs under ``vmap`` too, where it sees one client's tensors. Raises TypeError that names the part, the entry and its
    type: an error in a client's code is that client's failure.
    """
    if not isinstance(result, tuple | list) or len(result) not in (3, 4):
        raise TypeError(f"local_update returned {_kind(result)}; it must return (reply, new state, metrics)")
    reply, state, metrics = (
        checked(f"the {what} of local_update", part) for what, part in zip(PARTS, result[:3], strict=True)
    )
    if len(result) == 4:
        if not isinstance(result[3], Mapping):
            raise TypeError(f"the payload of payload_update is {_kind(result[3])}; it must be trees by name")
        beside = {name: checked(f"{name} in the payload of payload_update", part) for name, part in result[3].items()}
        reply = payload.join(reply, beside)
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
