"""Algebra on whole models, against results computed by hand for two floating-point leaves and an integer leaf."""

import hashlib

import pytest
import torch

from fl_sim import tree
from fl_sim.tree import Tree


def model(*numbers: float, count: int = 0) -> Tree:
    """Three weights, one bias, and a counter such as that of BatchNorm."""
    return {"w": torch.tensor(numbers[:3]), "b": torch.tensor(numbers[3]), "n": torch.tensor(count)}


A, B = model(1.0, 2.0, 3.0, 4.0, count=5), model(3.0, 2.0, -1.0, 8.0, count=9)


def same(a: Tree, b: Tree) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_sums_and_multiples() -> None:
    assert same(tree.add(A, B), model(4.0, 4.0, 2.0, 12.0, count=5))
    assert same(tree.add(A, B, 0.5), model(2.5, 3.0, 2.5, 8.0, count=5))
    assert same(tree.sub(B, A), model(2.0, 0.0, -4.0, 4.0, count=9))
    assert same(tree.scale(A, 2), model(2.0, 4.0, 6.0, 8.0, count=5))
    assert same(tree.zeros(A), model(0.0, 0.0, 0.0, 0.0))
    assert same(tree.or_zeros({**A, "w": None}, B), {**A, "w": torch.zeros_like(B["w"])})


def test_adding_a_gradient_keeps_what_has_none() -> None:
    assert same(tree.add(A, {"w": torch.ones(3)}, -1.0), model(0.0, 1.0, 2.0, 4.0, count=5))


def test_lerp_goes_from_the_first_to_the_second() -> None:
    assert same(tree.lerp(A, B, 0.25), model(1.5, 2.0, 2.0, 5.0, count=9))
    odd = {"w": torch.tensor([0.1, 1e8, -3.3])}
    assert same(
        tree.lerp(odd, {"w": torch.tensor([0.7, 1e-8, 5.5])}, 1.0), {"w": torch.tensor([0.7, 1e-8, 5.5])}
    )  # exactly
    assert same(tree.lerp(A, {"b": torch.tensor(0.0)}, 0.5), model(1.0, 2.0, 3.0, 2.0, count=5))


@pytest.mark.parametrize("condition, chosen", [(True, A), (False, B)])
def test_where_takes_one_or_the_other(condition: bool, chosen: Tree) -> None:
    assert same(tree.where(torch.tensor(condition), A, B), chosen)


def test_clones_share_nothing() -> None:
    leaf = torch.ones(2, requires_grad=True)
    copy = tree.clone({"w": leaf * 2})
    assert copy["w"].grad_fn is None and copy["w"].data_ptr() != leaf.data_ptr() and copy["w"].tolist() == [2, 2]


def test_norm_and_finiteness_look_at_numbers_only() -> None:
    # sqrt(1 + 4 + 9 + 16) = sqrt(30); the counter 5 is not included
    assert tree.norm(A).item() == pytest.approx(30**0.5, rel=1e-6)
    assert tree.norm({"n": torch.tensor(3)}).item() == 0 and bool(tree.finite({"n": torch.tensor(3)}))
    assert bool(tree.finite(A))
    assert not any(bool(tree.finite(model(1.0, bad, 1.0, 1.0))) for bad in (float("nan"), float("inf")))


def test_to_changes_numbers_and_leaves_counters() -> None:
    assert {k: v.dtype for k, v in tree.to(A, torch.float64).items()} == {
        "w": torch.float64,
        "b": torch.float64,
        "n": torch.int64,
    }


def test_stack_and_take_are_inverse() -> None:
    stacked = tree.stack([A, B])
    assert stacked["w"].shape == (2, 3) and same(tree.take(stacked, 1), B)
    assert tree.take(stacked, slice(0, 1))["b"].tolist() == [4.0]
    assert tree.take(stacked, torch.tensor([1, 0, 1]))["n"].tolist() == [9, 5, 9]


def test_bytes() -> None:
    assert tree.num_bytes(A) == 3 * 4 + 4 + 8


def test_a_digest_is_of_names_types_shapes_and_bytes() -> None:
    assert (
        tree.digest({"b": torch.tensor([1, 2])})
        == hashlib.sha256(b"b:torch.int64:(2,);" + b"\1" + b"\0" * 7 + b"\2" + b"\0" * 7).hexdigest()
    )
    digests = {
        tree.digest(t)
        for t in (
            A,
            B,
            {**A, "w": A["w"].double()},
            {**A, "w": A["w"][None]},
            {"v": A["w"], "b": A["b"], "n": A["n"]},
            model(1, 2, 3, 4.0001),
        )
    }
    assert len(digests) == 6
    assert tree.digest(dict(reversed(A.items()))) == tree.digest(A)
    turned = torch.arange(6.0).reshape(2, 3).T
    assert tree.digest({"w": turned}) == tree.digest({"w": turned.contiguous()})
