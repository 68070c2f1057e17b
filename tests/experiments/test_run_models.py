"""Models passed to ``run``: what is said of them, what is refused, lazy layers, several seeds, the printed result."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.learner import make_module
from experiments.run import run
from fl_sim import from_arrays, rng
from fl_sim.errors import ConfigError
from tests.fl_sim.learning.networks.test_gradient_check import Again

X = np.random.default_rng(0).normal(size=(24, 4)).astype("f")
TASK = from_arrays(X, np.arange(24) % 3, x_test=X, y_test=np.arange(24) % 3)


def small() -> nn.Sequential:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def once(model: Any, out: Any, **settings: Any) -> Any:
    return run(model=model, task=TASK, clients=3, rounds=1, out=str(out), **settings)


def test_a_passed_module_starts_every_seed_and_that_is_said(tmp_path: Any) -> None:
    module = small()
    with pytest.warns(UserWarning, match="all seeds start from the weights of the module that was passed; pass a func"):
        results = once(module, tmp_path, seed=[0, 1])
    for result in results:
        assert "runs with other seeds do too" in result.summary["model_notes"]
        assert result.log.events.event.tolist().count("model") == 1
    assert results[0].log.rounds.loss[0] == results[1].log.rounds.loss[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        results = once(lambda: nn.Linear(4, 3), tmp_path, seed=[0, 1])
    assert results[0].log.rounds.loss[0] != results[1].log.rounds.loss[0]
    assert results[0].summary["model_notes"] is None


def test_a_result_prints_in_a_few_lines(tmp_path: Any) -> None:
    result = once(small().half(), tmp_path)
    text = str(result)
    assert text == repr(result) and len(text.splitlines()) == 6 and "tensor" not in text
    assert f"accuracy {result.summary['accuracy']:.4f}" in text and result.summary["digest"] in text
    assert "completed: 1 rounds in " in text and result.summary["run_dir"] in text
    assert "parameters of type float16 become float32" in text


def test_lazy_layers_get_shapes_from_the_task_and_weights_from_the_seed(tmp_path: Any) -> None:
    module = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Dropout(0.5), nn.LazyLinear(3))
    first, again, other = (once(module, tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.summary["digest"] == again.summary["digest"]
    assert first.log.rounds.loss[0] == again.log.rounds.loss[0] != other.log.rounds.loss[0]
    assert isinstance(module[0].weight, nn.parameter.UninitializedParameter)  # the user's own is as it was
    made = make_module(module.train(), {}, TASK, 0, "mine")
    assert all(layer.training for layer in made.modules())  # the samples were taken in evaluation mode
    module.load_state_dict(first.model)
    with pytest.raises(ConfigError, match="its lazy layers cannot take task arrays's samples of shape"):
        once(nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten()), tmp_path)


class Closed(nn.Module):
    """Its forward uses the layers of the original, in every copy."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small()
        self.call = lambda x: self.inner(x)

    def forward(self, x: torch.Tensor) -> Any:
        return self.call(x)


class Locked(nn.Module):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.rows = small(), (row for row in X)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small().requires_grad_(False), "all 4 parameters are frozen"),
        (Closed, "its forward calls inner, inner.0, inner.1, inner.2 of the original, not of the copy that trains"),
        (lambda: lambda: nn.Flatten(), "the network has no parameters"),
        (Again, "the gradient of inner.0.weight has the norm .* of the module's own: the forward must use"),
        (Locked, "cannot be copied .*; pass a function that makes it"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused_on_both_engines(
    make: Any, message: str, engine: str, tmp_path: Any
) -> None:
    with pytest.raises(ConfigError, match=f"model.name = .*: {message}"):
        once(make(), tmp_path, engine=engine)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_frozen_parts_come_back_as_they_were(engine: str, tmp_path: Any) -> None:
    module = small()
    module[0].requires_grad_(False)
    result = once(module, tmp_path, engine=engine, dtype="float64")
    torch.testing.assert_close(result.model["0.weight"], module[0].weight.double(), rtol=1e-12, atol=0)
    assert not torch.equal(result.model["2.weight"], module[2].weight.double())


def test_a_hook_on_the_backward_pass_runs_on_the_loop(tmp_path: Any) -> None:
    module = small()
    module[1].register_full_backward_hook(lambda layer, inner, outer: (inner[0] * 2,))
    result = once(module, tmp_path, engine="vmap")
    assert result.summary["engine"] == "loop"
    assert "a hook on its backward pass" in result.log.events.note[0]
