"""Networks that cannot be trained are refused by name, and what a run changes in others is told."""

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fl_sim.learning.networks.module_checks import attributes, calls_of, changed, notes, problem, written


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def frozen() -> nn.Module:
    return plain().requires_grad_(False)


def hooked() -> nn.Module:
    module = plain()
    module[0].weight.register_hook(lambda g: g * 0)
    return module


def hooked_after() -> nn.Module:
    module = plain()
    module[0].weight.register_post_accumulate_grad_hook(lambda p: None)
    return module


def sharing() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = nn.Parameter(module[0].weight.data)
    return module


def following() -> nn.Module:
    module = plain()
    module.register_buffer("view", module[0].bias.detach())
    return module


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return plain()


def sparse() -> nn.Module:
    module = plain()
    module.register_buffer("edges", torch.eye(3).to_sparse())
    return module


def masked() -> nn.Module:
    module = plain()
    module.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    module.register_buffer("constant", torch.full((2, 2), -torch.inf), persistent=False)
    return module


class Quantized(nn.Linear):
    __module__ = "torch.ao.nn.quantized.dynamic.modules.linear"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.DataParallel(plain()), "the network is wrapped in DataParallel, .* pass its .module"),
        (lambda: nn.Sequential(torch.jit.script(plain())), "layer 0 was compiled by torch.jit, .* pass the module"),
        (lambda: nn.Sequential(Quantized(2, 2)), "layer 0 .Quantized. is quantized .* pass the float module"),
        (lambda: nn.Sequential(nn.LazyLinear(2)), "0.weight of a lazy layer has no shape yet"),
        (on_meta, "0.weight is on the device meta"),
        (sparse, "edges is of the layout torch.sparse_coo; it must be an ordinary tensor"),
        (masked, "mask holds NaN or infinity, and is averaged over clients; .* mask, with persistent=False, or use a"),
        (hooked, "parameter 0.weight has a gradient hook"),
        (hooked_after, "parameter 0.weight has a gradient hook"),
        (sharing, r"0.weight and 1.weight are two tensors that share memory, .* \(1.weight = 0.weight\)"),
        (following, "0.bias and view are two tensors that share memory"),
        (frozen, "all 4 parameters are frozen .requires_grad is False."),
        (nn.Tanh, "the network has no parameters"),
    ],
)
def test_what_cannot_be_trained_is_named(make: Any, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still used
        module = make()
    assert re.search(message, problem(module))


def test_what_can_be_trained_is_not_refused() -> None:
    tied, partly, empty = plain(), plain(), plain()
    tied.register_parameter("again", tied[0].weight)
    tied.register_buffer("first", torch.ones(2))
    tied.register_buffer("second", tied.get_buffer("first"))
    partly[0].requires_grad_(False)
    empty.register_buffer("a", torch.zeros(0))
    empty.register_buffer("b", torch.zeros(0))
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    for module in (plain(), tied, partly, empty, normed, plain().half()):
        assert problem(module) == ""


def test_notes_tell_what_is_changed() -> None:
    module = plain()
    assert notes(module, torch.float32, False) == notes(module, torch.float64, False) == []
    assert "starts from the weights of the module that was passed; runs with other seeds do too" in str(
        notes(module, torch.float32, True)
    )
    for kind, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")):
        [note] = notes(plain().to(kind), torch.float32, False)
        assert note == f"the network's parameters of type {name} become float32, the dtype of the run"
    assert notes(plain().double(), torch.float64, False) == [] == notes(plain().eval(), torch.float32, False)
    module[1].eval()
    [note] = notes(module, torch.float32, False)
    assert "the layers 1 are in evaluation mode; clients train with every layer in training mode" in note


class Counting(nn.Module):
    """Keeps numbers and tensors outside of its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.count, self.seen, self.kept = plain(), 0, [1.0], None
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        self.count += 1
        self.seen.append(2.0)
        self.kept = y.detach()
        self.cache = torch.zeros(1)
        return y


def test_attributes_that_a_forward_changes_are_named() -> None:
    module = nn.Sequential(Counting(), nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)))
    before = attributes(module)
    assert changed(before, attributes(module)) == ""
    module(torch.ones(2, 4))
    note = changed(before, attributes(module))
    assert "changes its attributes 0.cache, 0.count, 0.kept, 0.seen, which are no persistent buffers" in note


def test_calls_of_the_original_are_seen() -> None:
    module = plain()
    with calls_of(module) as called:
        module[2](torch.ones(1, 6))
    module(torch.ones(1, 4))
    assert called == {"2"} and not module[0]._forward_pre_hooks


@pytest.mark.parametrize("layer", [nn.Embedding(5, 2, max_norm=1.0), nn.EmbeddingBag(5, 2, max_norm=1.0)])
def test_rows_that_a_layer_shortens_have_a_cure_of_their_own(layer: nn.Module) -> None:
    found = written(nn.Sequential(layer), {"0.weight"}, {"memo"})
    where = "its forward writes into 0.weight, memo (persistent=False), where the next client would find it"
    assert found.startswith(f"{where}: {type(layer).__name__}(max_norm=...), which shortens rows of 0.weight")
    assert "leave max_norm out" in found and "persistent buffer" not in found
    e = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    short = e * 1.0 / e.norm(dim=-1, keepdim=True).clamp(min=1.0)  # the cure, with MAX = 1
    short.sum().backward()
    assert torch.allclose(short, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert e.grad is not None and bool(e.grad.isfinite().all())


def test_the_cure_fits_what_is_written() -> None:
    assert written(plain(), {"0.weight"}, ()).endswith("compute a new tensor (w.clamp(0) instead of w.clamp_(0))")
    assert written(plain(), (), {"memo"}).endswith("compute a new tensor, or register it as a persistent buffer")
    assert written(plain(), (), ()) == ""
