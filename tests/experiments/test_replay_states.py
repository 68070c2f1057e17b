"""A replay of the round in which a run failed begins with the states that its clients and its strategy had."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experiments import replay
from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.setup import build
from fl_sim import Batch, Local, Loss, load
from fl_sim.tree import Tree
from strategies.local_only import LocalOnly
from strategies.scaffold import Scaffold


@dataclass
class Stops(LocalOnly):
    """Clients fail in round 3."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> Any:
        new, state, metrics = super().local_update(model, state, batches, loss, local)
        if local.lr < 0.06:
            raise ArithmeticError(f"too slow with a loss of {float(metrics['loss'])}")
        return new, state, metrics


@dataclass
class Halts(Scaffold):
    """Clients fail in round 3."""

    def payload_update(
        self, model: Tree, payload: Any, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> Any:
        result = super().payload_update(model, payload, state, batches, loss, local)
        if local.lr < 0.06:
            raise ArithmeticError(f"too slow with a loss of {float(result[2]['loss'])}")
        return result


@pytest.mark.parametrize("strategy", [Stops(), Halts()])
def test_a_client_fails_with_the_same_numbers(strategy: Any, tmp_path: Path) -> None:
    settings = {"task": "digits", "model": "lr", "clients": 3, "rounds": 4, "out": str(tmp_path), "strategy": strategy}
    settings |= {"local": {"steps": 2, "lr_schedule": "step"}, "checkpoint_every": 1}
    summary, error = execute(build(make(**settings)), quiet=True)
    assert error is not None
    folder = Path(summary["run_dir"])
    [row] = load(folder).clients.query("status == 'failed'").to_dict("records")
    done = replay.replay(folder, row["round"], row["client"], setup=build(make(**settings)))
    assert done.agreement == "fails as it did" and done.recomputed == 0
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    again = replay.replay(folder, row["round"], row["client"], setup=build(make(**settings)))
    assert again.agreement == "fails as it did" and again.recomputed == row["round"] - 1
