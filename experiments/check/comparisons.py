"""Assertions that two trees, or two runs, are equal up to rounding."""

import torch

from experiments.check.world import Trained
from fl_sim.tree import Tree

CLOSE = 1e-9
"""Largest relative difference of float64 numbers that are equal up to rounding."""


def assert_close(a: Tree, b: Tree, what: str) -> None:
    """Assert equal names, shapes and dtypes, and |a - b| <= CLOSE |a| in the Euclidean norm for each leaf.

    Leaves of a lower precision than float64 may differ by its rounding. Infinities must be equal.
    """
    assert set(a) == set(b), f"{what}: different names {sorted(set(a) ^ set(b))}"
    for name, x in a.items():
        forms = [f"{tuple(t.shape)} {t.dtype}" for t in (x, b[name])]
        assert forms[0] == forms[1], f"{what}: {name} is {forms[1]}, must be {forms[0]}"
        one, other = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (x, b[name]))
        difference = float((one - other).masked_fill(one == other, 0).norm())
        size = float(one.masked_fill(one.isinf(), 0).norm())
        inexact = x.is_floating_point() or x.is_complex()
        allowed = max(CLOSE, 2 * torch.finfo(x.dtype).eps) if inexact else CLOSE
        assert difference <= allowed * max(size, 1e-6), (
            f"{what}: {name} differs by {difference / max(size, 1e-300):.1e} relative (allowed {allowed:.0e})"
        )


def assert_same_run(a: Trained, b: Trained, what: str) -> None:
    """Assert that two runs end with the same model and with the same state of each client, up to rounding."""
    assert_close(a.model, b.model, what)
    assert set(a.states) == set(b.states), f"{what}: clients {sorted(set(a.states) ^ set(b.states))} have no state"
    for client, state in a.states.items():
        assert_close(state, b.states[client], f"{what}: the state of client {client}")
