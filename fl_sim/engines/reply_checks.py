"""Checks of clients' replies, before they are pooled.

Legend: C clients (leading axis of stacked replies).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fl_sim.learning.networks import home_leaves
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree
from fl_sim.wire import payload


def table(columns: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Columns (C,) as Python numbers, copied from the device in one transfer."""
    if all(x.device.type == "cpu" for x in columns.values()):
        return {k: x.double().tolist() for k, x in columns.items()}
    rows = torch.stack([x.double() for x in columns.values()]).tolist()
    return dict(zip(columns, rows, strict=True))


def shape_problem(replies: Mapping[str, Tensor], form: Tree, trainable: tuple[str, ...], rule: LocalRule) -> str:
    """Why stacked replies (C, ...) do not fit ``form``, the global model and the rule's payload; empty if they do."""
    if rule.reply_kind == "none":
        return ""
    required = {*trainable, *(k for k in form if payload.BETWEEN in k)}
    missing, unknown = sorted(required - set(replies)), sorted(set(replies) - set(form))
    if missing or unknown:
        return f"wrong keys: missing {missing}, unknown {unknown}"
    for k, x in replies.items():
        if x.shape[1:] != form[k].shape:
            return f"wrong shape: {k} is {tuple(x.shape[1:])}, must be {tuple(form[k].shape)}"
        if x.dtype != form[k].dtype:
            return f"wrong dtype: {k} is {x.dtype}, must be {form[k].dtype}"
    return ""


def non_finite(replies: Mapping[str, Tensor]) -> dict[int, str]:
    """Position in C -> which leaf of that client's reply holds NaN or infinity."""
    bad: dict[int, str] = {}
    for k, x in replies.items():
        if x.is_floating_point():
            finite = torch.isfinite(x).reshape(len(x), -1).all(1)
            if not bool(finite.all()):
                for c in (~finite).nonzero().flatten().tolist():
                    bad.setdefault(c, f"NaN or infinity in {k}")
    return bad


STATE_SUM = ""
"""The name of the column that ``state_sums`` returns: no metric has it."""


def state_sums(states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of each client's new state (C, ...), which is NaN where the state holds NaN; {} without floats.

    The sum may also be NaN or infinite where no value is NaN.
    """
    sums = [x.reshape(len(x), -1).sum(1, dtype=torch.float64) for x in _real(states).values()]
    return {STATE_SUM: torch.stack(sums).sum(0)} if sums else {}


def nan_states(states: Mapping[str, Tensor]) -> dict[int, str]:
    """Position in C -> which leaf of that client's new state holds NaN. Infinity is allowed: the least value so far.

    It is not allowed in a leaf of the model, which stays with the client.
    """
    bad: dict[int, str] = {}
    for k, x in _real(states).items():
        home = k.startswith(home_leaves.IN_STATE)
        wrong = ~torch.isfinite(x) if home else torch.isnan(x)
        what = f"NaN or infinity in {k.removeprefix(home_leaves.IN_STATE)}" if home else f"NaN in {k} of its new state"
        for c in wrong.reshape(len(x), -1).any(1).nonzero().flatten().tolist():
            bad.setdefault(c, f"{what}; it keeps the state that it had")
    return bad


def _real(states: Mapping[str, Tensor]) -> Tree:
    """The leaves that may hold NaN; complex ones as pairs of real numbers."""
    parts = {k: torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for k, x in states.items()}
    return {k: x for k, x in parts.items() if x.is_floating_point()}


def own_state(states: Mapping[str, Tensor], index: int) -> Tree:
    """One client's state of stacked states (C, ...), in memory of its own.

    A part would keep all clients' states, or the model of which it is a view, in memory; and a tensor that the rule
    writes into later would change under the client. All are contiguous, as they are when a run resumes: matrix products
    of another layout may have other bits.
    """
    return {
        k: x[index].detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        for k, x in states.items()
    }


def update_norms(replies: Mapping[str, Tensor], model: Tree, rule: LocalRule) -> dict[str, Tensor]:
    """``update_norm``: norm of each client's update, without its payload, (C,); {} where a reply holds no floats."""
    anchored = rule.reply_kind == "weights"
    squares = [
        torch.linalg.vector_norm((x - model[k] if anchored else x).reshape(len(x), -1), dim=1)
        for k, x in replies.items()
        if x.is_floating_point() and payload.BETWEEN not in k
    ]
    return {"update_norm": torch.linalg.vector_norm(torch.stack(squares), dim=0)} if squares else {}
