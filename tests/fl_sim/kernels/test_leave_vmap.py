"""Out of ``vmap`` and back: what is computed for all clients at once is what each would compute."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim import rng
from fl_sim.blocks.padding import rows_of
from fl_sim.kernels import leave_vmap
from fl_sim.learning.measures import cross_entropy

CLIENTS, BATCH, CLASSES = 3, 4, 5
OUTPUTS = rng.uniform(rng.words(rng.key(0, "outputs")), (CLIENTS, BATCH, CLASSES), torch.float64)
Y = torch.tensor([[0, 1, 2, 3], [4, 4, 4, 4], [2, 0, 1, 3]])


def test_it_is_possible_under_one_vmap_only() -> None:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(leave_vmap.is_possible())
        return x.sum()

    look(OUTPUTS)
    torch.func.vmap(look)(OUTPUTS)
    torch.func.vmap(torch.func.vmap(look))(OUTPUTS)
    torch.func.vmap(torch.func.grad(look))(OUTPUTS)
    assert seen == [False, True, False, False]


def test_rows_are_those_of_each_client() -> None:
    data = {"x": torch.arange(40.0).reshape(10, 2, 2), "y": torch.arange(10)}
    index = torch.tensor([[[1, 2, 3], [9, 9, 0]], [[4, 4, 4], [0, 1, 2]]])
    made = torch.func.vmap(lambda own: rows_of(data, own))(index)
    assert all(torch.equal(made[k], data[k][index]) for k in data)
    assert all(torch.equal(v, data[k][index[0]]) for k, v in rows_of(data, index[0]).items())


def test_cross_entropy_and_its_gradient_are_those_of_each_client() -> None:
    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(outputs, {"y": y})

    expected = torch.stack([F.cross_entropy(o, y, reduction="none") for o, y in zip(OUTPUTS, Y, strict=True)])
    assert torch.allclose(torch.func.vmap(loss)(OUTPUTS, Y), expected, rtol=1e-14)
    assert torch.allclose(torch.func.vmap(loss, in_dims=(0, None))(OUTPUTS, Y[0])[0], expected[0], rtol=1e-14)
    leaf = OUTPUTS.clone().requires_grad_()
    [around] = torch.autograd.grad(torch.func.vmap(loss)(leaf, Y).sum(), leaf)
    inside = torch.func.vmap(torch.func.grad(lambda o, y: loss(o, y).sum()))(OUTPUTS, Y)
    assert torch.allclose(around, inside, rtol=1e-12)
