"""A model as it is trained and as the module's state_dict: shared tensors and complex numbers."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.run import run
from fl_sim import from_arrays, load, rng, tree
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.networks.state_form import StateForm
from fl_sim.learning.settings import Local
from fl_sim.learning.training import train

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(24, 6)), np.arange(24) % 2


class Shared(nn.Module):
    """A layer under two names, a tied weight, a buffer under two names, and one whose first name is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Linear(6, 6)
        self.layers, self.out = nn.ModuleList([block, block]), nn.Linear(6, 2)
        self.again = nn.Linear(6, 2)
        self.again.weight = self.out.weight
        self.register_buffer("scale", torch.full((6,), 1.5))
        self.register_buffer("also", self.scale)
        self.register_buffer("hidden", torch.tensor([2.0]), persistent=False)
        self.register_buffer("shown", self.hidden)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x * self.get_buffer("also")).tanh()
        y: Tensor = self.out(x) + self.again(x) * self.get_buffer("shown")
        return y


class Spectral(nn.Module):
    """A complex filter that is trained, and a complex buffer that is not."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.polar(torch.ones(4), torch.arange(4.0)))
        self.register_buffer("turn", torch.polar(torch.ones(4), -torch.arange(4.0)), persistent=persistent)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(torch.fft.irfft(torch.fft.rfft(x) * self.filter * self.get_buffer("turn"), n=6))
        return y


def keyed(make: Any) -> nn.Module:
    with rng.keyed_globals(3):
        module: nn.Module = make()
    return module


def widened(module: nn.Module) -> nn.Module:
    """A copy in double precision, where complex numbers stay complex (``double()`` would drop their second half)."""
    new = copy.deepcopy(module)
    for p in new.parameters():
        p.data = p.data.to(torch.complex128 if p.is_complex() else torch.float64)
    for name, b in [*new.named_buffers(remove_duplicate=False)]:
        setattr(new, name, b.to(torch.complex128 if b.is_complex() else torch.float64))
    return new


def batches(loss: Loss) -> list[Batch]:
    return [Batch({k: v[rows] for k, v in loss.task.train.items()}, rng.words(1)) for rows in (slice(8), slice(8, 16))]


def trained_by_torch(module: nn.Module, samples: list[Batch], local: Local) -> dict[str, Tensor]:
    """The same two steps by torch.optim."""
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[local.optimizer]
    optimiser = kind(module.parameters(), lr=local.lr)
    for batch in samples:
        optimiser.zero_grad()
        F.cross_entropy(module(batch.data["x"].double()), batch.data["y"]).backward()
        if local.clip_norm:
            nn.utils.clip_grad_norm_(module.parameters(), local.clip_norm)
        optimiser.step()
    return module.state_dict()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    "local",
    [Local(lr=0.1), Local(lr=0.1, optimizer="adam"), Local(lr=0.1, clip_norm=0.05)],
    ids=["sgd", "adam", "clip"],
)
@pytest.mark.parametrize("make", [Spectral, Shared])
def test_two_steps_are_those_of_torch(make: Any, local: Local, many: bool) -> None:
    module = widened(keyed(make))
    loss = Loss(module, from_arrays(X, Y, outputs=2), torch.float64)
    if many:
        stacked = tree.stack([loss.initial(), tree.scale(loss.initial(), 2.0)])
        inner = loss.under_vmap()
        new = tree.take(torch.func.vmap(lambda own: train(own, batches(loss), local, inner.gradient)[0])(stacked), 0)
    else:
        new, _ = train(loss.initial(), batches(loss), local, loss.step_gradient)
    expected = trained_by_torch(module, batches(loss), local)
    found = loss.form.state_dict(new)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
    module.load_state_dict(found)


@pytest.mark.parametrize("persistent", [True, False])
def test_complex_buffers_stay_complex(persistent: bool) -> None:
    """The loss in single and double precision is that of the module itself."""
    module = keyed(lambda: Spectral(persistent))
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        own = module if dtype == torch.float32 else widened(module)
        loss = Loss(module, from_arrays(X, Y, outputs=2), dtype)
        [batch, _] = batches(loss)
        expected = F.cross_entropy(own(batch.data["x"].to(dtype)), batch.data["y"]).item()
        assert loss(loss.initial(), batch).item() == pytest.approx(expected, rel=tolerance)
        assert all(not v.is_complex() for v in loss.initial().values())
        assert loss.form.state_dict(loss.initial()).keys() == module.state_dict().keys()


def test_both_forms_are_received() -> None:
    """A run may start from the tree that was trained, or from a state_dict."""
    module = keyed(Shared)
    module.register_buffer("steps", torch.tensor(3))
    module.register_parameter("wave", nn.Parameter(torch.ones(2, dtype=torch.complex64)))
    loss = Loss(module, from_arrays(X, Y, outputs=2))
    for model in (loss.initial(), module.state_dict(), {**loss.initial(), "steps": torch.tensor(2.6)}):
        received = loss.received(model)
        assert received.keys() == loss.initial().keys() and int(received["steps"]) == 3
        assert all(torch.equal(v, received[k]) for k, v in loss.initial().items())
    form = StateForm.of(module)
    assert form.aliases == {
        "layers.1.weight": "layers.0.weight",
        "layers.1.bias": "layers.0.bias",
        "again.weight": "out.weight",
        "also": "scale",
    }
    assert form.complexes == {"wave"} and form.constants.keys() == {"shown"} and not form.is_plain
    assert StateForm.of(nn.Linear(2, 2)).is_plain


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [Shared, Spectral])
def test_a_result_loads_into_the_users_module(make: Any, dtype: str, tmp_path: Any) -> None:
    """The result, the log and the file; the evaluation of the module that loads them is that of the log."""
    module = keyed(make)
    task = from_arrays(X, Y, x_test=X, y_test=Y, outputs=2)
    result = run(model=module, task=task, clients=3, rounds=1, dtype=dtype, out=str(tmp_path))
    loaded = widened(module)
    x = torch.from_numpy(X)
    for model in (result.model, load(result.summary["run_dir"]).model()):
        loaded.load_state_dict(model)
        loss = F.cross_entropy(loaded(x), torch.from_numpy(Y)).item()
        assert loss == pytest.approx(result.log.rounds["loss"][1], rel=1e-5 if dtype == "float32" else 1e-12)
    if make is Shared or dtype == "float32":  # safetensors has no complex128
        module.load_state_dict(load_file(result.summary["run_dir"] + "/model.safetensors"))
