"""The engine that auto chooses for networks with convolutions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments import run
from experiments.config.choices import offered
from experiments.config.recipe_files import make
from experiments.run import run as call
from experiments.runs.execute import resolved
from experiments.runs.setup import build
from fl_sim import from_arrays
from fl_sim.learning.rule import LocalRule

DRAW = torch.Generator().manual_seed(0)
TASK = from_arrays(torch.randn(96, 1, 6, 6, generator=DRAW), torch.arange(96) % 2, name="pictures")
SMALL, LARGE = 4, 1000
"""Units of a layer: 180 and 36 000 weights, or so."""


def network(units: int) -> nn.Module:
    """A convolution and two linear layers."""
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, units), nn.Tanh(), nn.Linear(units, 2))


def engine_of(model: nn.Module, **settings: Any) -> str:
    """The engine of a run of eight clients of twelve samples."""
    settings = {"clients": 8, "partition": "iid", "local.batch_size": 12, **settings}
    if settings.get("strategy") in ("maml", "anil", "metasgd", "r2d2"):
        settings.pop("local.batch_size")
    return build(make(task=TASK, model=model, **settings)).engine.name


@pytest.mark.parametrize(
    "units, expected, settings",
    [
        # W = 180 x 12: 3 + 1.2 W / (W + 200 000) 8 = 3.1 of 8 clients; 35 000 x 12: 9.5, and 1 + .75 .. 8 = 5.1
        (SMALL, "vmap", {}),
        (LARGE, "loop", {}),
        (SMALL, "loop", {"cohort": 2}),
        (LARGE, "vmap", {"strategy": "perfedavg", "strategy.order": "exact"}),
        (LARGE, "loop", {"strategy": "perfedavg", "strategy.order": "exact", "cohort": 2}),
        (LARGE, "loop", {"strategy": "maml", "strategy.order": 1}),
        (LARGE, "vmap", {"strategy": "maml", "strategy.order": 2}),
        (LARGE, "vmap", {"strategy": "anil"}),
        (LARGE, "vmap", {"strategy": "metasgd"}),
        (LARGE, "vmap", {"strategy": "r2d2"}),
        (LARGE, "loop", {"strategy": "maml", "strategy.order": 2, "engine": "loop"}),
    ],
)
def test_small_convolutions_and_own_derivatives_are_on_vmap(units: int, expected: str, settings: Any) -> None:
    assert engine_of(network(units), **settings) == expected


def test_what_vmap_cannot_take_stays_on_the_loop() -> None:
    two = {"strategy": "maml", "strategy.order": 2}
    assert engine_of(nn.Sequential(network(SMALL), nn.BatchNorm1d(2)), **two) == "loop"
    hooked = network(SMALL)
    hooked[0].register_full_backward_hook(lambda *_: None)  # type: ignore[index]
    assert engine_of(hooked) == "loop"

    class Reads(nn.Module):
        """A network whose gradient differs under vmap: it takes a shape that clients share."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network(SMALL)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out * (2.0 if torch._C._functorch.is_batchedtensor(out) else 1.0)

    assert engine_of(Reads()) == "loop"

    class Asks(nn.Module):
        """A network that looks at a number, which vmap refuses: each block would fall back."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network(SMALL)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out / 2 if out.abs().max() > 1e6 else out

    assert engine_of(Asks()) == "loop"


def test_strategies_that_differentiate_the_loss_themselves_say_so() -> None:
    named = {n for n, c in offered("strategy").items() if isinstance(c(), LocalRule) and c().own_derivatives}
    assert named == {"anil", "metasgd", "r2d2", "metaoptnet"}
    assert offered("strategy")["maml"](order=2).own_derivatives
    assert offered("strategy")["perfedavg"](order="exact").own_derivatives


def test_a_stored_run_keeps_the_engine_that_it_began_with(tmp_path: Path) -> None:
    """As runs that chose the loop where auto is vmap today: the config that they stored names it."""
    settings: dict[str, Any] = {
        **{"task": "digits", "model": "cnn-gn", "clients": 3, "strategy": "maml", "strategy.order": 2},
        **{"strategy.support_size": 4, "strategy.query_size": 4, "local.batch_size": 4},
    }
    whole = call(**settings, engine="loop", rounds=2, out=str(tmp_path / "loop"))
    begun = call(**settings, engine="loop", rounds=1, out=str(tmp_path / "begun"))
    folder = Path(begun.summary["run_dir"])
    assert run.main(["--resume", str(folder), "--rounds", "2", "--quiet"]) == 0
    assert json.loads((folder / "summary.json").read_text())["digest"] == whole.summary["digest"]
    assert 'engine = "loop"' in (folder / "config.toml").read_text()
    today = build(make(**settings, rounds=1))
    assert (today.engine.name, resolved(today).engine) == ("vmap", "vmap")
