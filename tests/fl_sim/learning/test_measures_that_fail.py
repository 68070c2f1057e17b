"""A loss, metric or set metric that raises is named: before the run, and while it goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.run import run
from fl_sim import ConfigError, from_arrays
from fl_sim.learning.measures import MeasureFailed, named
from fl_sim.learning.sets.set_metrics import own_metric
from fl_sim.learning.sets.set_values import set_values

X = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
TASK = from_arrays(X, (X.sum(1) > 0).long(), clients=torch.arange(80) % 4, name="tiny")


class Fails:
    """A metric that raises for more than ``most`` samples."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, outputs: Tensor, batch: Any) -> Tensor:
        if len(outputs) > self.most:
            raise KeyError("weights")
        return outputs.new_zeros(len(outputs))


def go(out: Path, **settings: Any) -> None:
    run(task=TASK, model="lr", rounds=1, cohort=2, quiet=True, out=out, **settings)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_metric_that_raises_in_a_run_is_named_in_the_log(engine: str, tmp_path: Path) -> None:
    """Seven samples, and one of them twice, are tried before the run, and the test set has 16."""
    why = r"metric 'mine' fails on 16 samples, outputs \(16, 2\), targets \(16,\): KeyError: 'weights'"
    with pytest.raises(MeasureFailed, match=why) as caught:
        go(tmp_path, metrics={"mine": Fails(8)}, engine=engine)
    assert isinstance(caught.value.__cause__, KeyError)
    [folder] = tmp_path.iterdir()
    assert "MeasureFailed: metric 'mine' fails on 16 samples" in (folder / "summary.json").read_text()


def test_one_that_raises_before_the_run_is_named(tmp_path: Path) -> None:
    why = r"task.name = 'tiny': metric 'mine' fails on 7 samples, outputs \(7, 2\), targets \(7,\): KeyError: 'weights'"
    with pytest.raises(ConfigError, match=why):
        go(tmp_path, metrics={"mine": Fails(0)})
    with pytest.raises(ConfigError, match=r"task.name = 'tiny': metric 'mine' fails on 8 samples, outputs \(8, 2\)"):
        go(tmp_path, metrics={"mine": Fails(7)})
    with pytest.raises(ConfigError, match=r"set_metrics: 'mine' fails on 16 samples, .*: KeyError: 'weights'"):
        go(tmp_path, set_metrics={"mine": Fails(0)})


def test_what_names_itself_or_has_a_remedy_passes() -> None:
    for error in (ConfigError("y: wrong"), torch.OutOfMemoryError("no"), UserWarning("broadcast")):
        with pytest.raises(type(error), match=str(error)), named("the loss", X, X):
            raise error
    why = r"the loss fails on 80 samples, outputs a object, targets .*: ValueError"
    with pytest.raises(MeasureFailed, match=why), named("the loss", object(), X):
        raise ValueError
    many = [(torch.zeros(9, 2), torch.zeros(9, dtype=torch.int64))]
    own = replace(TASK, set_metrics={"mine": own_metric("mine", lambda outputs, targets: outputs[99])})
    with pytest.raises(MeasureFailed, match=r"set metric 'mine' fails on 9 samples, outputs \(9, 2\), .*: IndexError"):
        set_values(own, many)
