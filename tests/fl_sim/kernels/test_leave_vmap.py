"""Functions called outside of ``vmap`` compute what each client would; private names of PyTorch have fallbacks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _functorch
from torch._functorch import pyfunctorch

from fl_sim import rng
from fl_sim.blocks.padding import rows_of
from fl_sim.kernels import leave_vmap
from fl_sim.learning.measures import cross_entropy
from tests.fl_sim.kernels.missing_names import import_without

ROOT = Path(__file__).parents[3]
CLIENTS, BATCH, CLASSES = 3, 4, 5
OUTPUTS = rng.uniform(rng.words(rng.key(0, "outputs")), (CLIENTS, BATCH, CLASSES), torch.float64)
Y = torch.tensor([[0, 1, 2, 3], [4, 4, 4, 4], [2, 0, 1, 3]])


@pytest.fixture(params=[True, False], ids=["with private names", "without"])
def available(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether PyTorch has the private names."""
    assert leave_vmap.AVAILABLE
    monkeypatch.setattr(leave_vmap, "AVAILABLE", request.param)
    return bool(request.param)


def test_it_is_possible_under_one_vmap_only(available: bool) -> None:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(leave_vmap.is_possible())
        return x.sum()

    look(OUTPUTS)
    torch.func.vmap(look)(OUTPUTS)
    torch.func.vmap(torch.func.vmap(look))(OUTPUTS)
    torch.func.vmap(torch.func.grad(look))(OUTPUTS)
    assert seen == [False, available, False, False]


def test_rows_are_those_of_each_client(available: bool) -> None:
    data = {"x": torch.arange(40.0).reshape(10, 2, 2), "y": torch.arange(10)}
    index = torch.tensor([[[1, 2, 3], [9, 9, 0]], [[4, 4, 4], [0, 1, 2]]])
    rows = torch.func.vmap(lambda own: rows_of(data, own))(index)
    assert all(torch.equal(rows[k], data[k][index]) for k in data)
    assert all(torch.equal(v, data[k][index[0]]) for k, v in rows_of(data, index[0]).items())


def test_a_function_of_each_client_is_that_of_vmap() -> None:
    """Also where its result is one for all, or has the clients on another axis; a random draw is an error in both."""
    other = Y.movedim(0, 1).contiguous().movedim(1, 0)
    for function in (lambda x, y: (x * y[:, None]).sum(), lambda x, y: torch.ones(()), lambda x, y: y.expand(2, 4).T):
        for y in (Y, other):
            found = leave_vmap.of_each_client(function, OUTPUTS, y)
            assert torch.equal(found, torch.func.vmap(function)(OUTPUTS, y))
    with pytest.raises(RuntimeError, match="random"):
        leave_vmap.of_each_client(lambda x: x + torch.rand(()), OUTPUTS)
    assert not leave_vmap.is_transformed()


def test_cross_entropy_and_its_gradient_are_those_of_each_client(available: bool) -> None:
    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(outputs, {"y": y})

    expected = torch.stack([F.cross_entropy(o, y, reduction="none") for o, y in zip(OUTPUTS, Y, strict=True)])
    assert torch.allclose(torch.func.vmap(loss)(OUTPUTS, Y), expected, rtol=1e-14)
    assert torch.allclose(torch.func.vmap(loss, in_dims=(0, None))(OUTPUTS, Y[0])[0], expected[0], rtol=1e-14)
    leaf = OUTPUTS.clone().requires_grad_()
    [around] = torch.autograd.grad(torch.func.vmap(loss)(leaf, Y).sum(), leaf)
    inside = torch.func.vmap(torch.func.grad(lambda o, y: loss(o, y).sum()))(OUTPUTS, Y)
    assert torch.allclose(around, inside, rtol=1e-12)


# Private names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "owner, name",
    [
        (_functorch, "TransformType"),
        (_functorch, "_add_batch_dim"),
        (_functorch, "_unwrap_batched"),
        (_functorch, "_vmap_increment_nesting"),
        (_functorch, "get_interpreter_stack"),
        (pyfunctorch, "retrieve_current_functorch_interpreter"),
    ],
)
def test_without_one_of_the_private_names_it_is_not_possible(owner: object, name: str) -> None:
    without, seen = import_without(leave_vmap, owner, name), []
    torch.func.vmap(lambda x: (seen.append(without.is_possible()), x.sum())[1])(OUTPUTS)
    assert seen == [False] and not without.AVAILABLE


def test_wrapped_tensors_are_recognised_without_the_private_name() -> None:
    without = import_without(leave_vmap, _functorch, "is_functorch_wrapped_tensor")
    assert leave_vmap.HAS_WRAPPED_CHECK and not without.HAS_WRAPPED_CHECK
    seen: list[tuple[bool, bool]] = []

    def look(x: Tensor) -> Tensor:
        seen.append((leave_vmap.is_wrapped(x), without.is_wrapped(x)))
        return x.sum()

    for x in (OUTPUTS, torch.zeros(0), torch.tensor(1.0), OUTPUTS[:, 1:].mT):
        look(x)
    torch.func.vmap(look)(OUTPUTS)
    torch.func.grad(look)(OUTPUTS)
    torch.func.vmap(torch.func.grad(look))(OUTPUTS)
    assert seen == [(False, False)] * 4 + [(True, True)] * 3


TENSOR_ATTRIBUTES = {"_version", "_base", "_make_wrapper_subclass"}
"""Private attributes of tensors, which are recognised by their names."""


def private_names_of_torch(tree: ast.AST) -> Iterator[str]:
    """The private names of PyTorch that a file imports or reads as attributes."""
    roots: dict[str, str] = {}  # a name in the file -> the dotted name of what it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                roots[(alias.asname or alias.name).partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield from _if_private(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                roots[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from _if_private(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in TENSOR_ATTRIBUTES:
                yield node.attr
            first, *rest = _dotted(node).split(".")
            yield from _if_private(".".join([roots.get(first, ""), *rest]))


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _if_private(name: str) -> Iterator[str]:
    package, *parts = name.split(".")
    if package in ("torch", "torchvision", "functorch") and any(p.startswith("_") and p[1:2] != "_" for p in parts):
        yield name


def test_private_names_of_pytorch_are_used_in_kernels_and_rng_only() -> None:
    users = {
        path.relative_to(ROOT).parent if "kernels" in path.parts else path.relative_to(ROOT)
        for package in ("fl_sim", "strategies", "clients", "experiments")
        for path in (ROOT / package).rglob("*.py")
        if any(private_names_of_torch(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert users == {Path("fl_sim/kernels"), Path("fl_sim/rng.py")}


@pytest.mark.parametrize(
    "code, expected",
    [
        ("import torch._dynamo", ["torch._dynamo"]),
        ("from torch._C import _functorch", ["torch._C._functorch"]),
        ("from torch.utils import _pytree as p\np.tree_map", ["torch.utils._pytree", "torch.utils._pytree.tree_map"]),
        ("import torch as t\nt._C", ["torch._C"]),
        ("from torch import nn\nnn.modules.batchnorm._BatchNorm", ["torch.nn.modules.batchnorm._BatchNorm"]),
        ("x._version", ["_version"]),
        ("import torch\ntorch.__version__, self._parameters, torch.nn.Module", []),
    ],
)
def test_the_check_sees_private_names(code: str, expected: list[str]) -> None:
    assert list(private_names_of_torch(ast.parse(code))) == expected
