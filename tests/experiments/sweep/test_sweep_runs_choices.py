"""What a sweep must not choose by, and what it must not make twice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from experiments.sweep import sweep, sweep_runs
from experiments.sweep.axis_values import axes_from
from experiments.sweep.search import Search, has_direction
from experiments.sweep.sweep_plan import Plan
from experiments.sweep.sweep_runs import make_trials
from experiments.sweep.trial_runs import Made
from experiments.sweep.trial_table import Trial, last, state_of
from fl_sim import ConfigError
from fl_sim.logs.reader import RunLog
from tests.experiments.sweep.test_sweep_runs import WORLD


def test_an_earlier_models_number_does_not_stand_for_a_final_one_that_is_not_finite() -> None:
    frame = pd.DataFrame({"round": [0, 1, 2], "digest": ["a", "b", "c"], "val_loss": [2.0, 0.1, float("nan")]})
    assert last(cast(RunLog, SimpleNamespace(rounds=frame)), "val_loss") is None
    same = frame.assign(digest=["a", "b", "b"])  # the last round changed no bit and was not evaluated
    assert last(cast(RunLog, SimpleNamespace(rounds=same)), "val_loss") == 0.1


def test_a_trial_that_was_pruned_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [Made("pruned", tmp_path), Made("missing")]
    assert state_of(states) == "pruned"
    monkeypatch.setattr(Trial, "states", lambda *given: states)
    monkeypatch.setattr(sweep_runs, "made", lambda place: pytest.fail("a run of it was looked at"))
    config: Any = SimpleNamespace(seed=0)
    trial = Trial("trial-0000", {}, [config, config])
    plan = Plan(axes_from({"local.lr": "1e-3..1"}), lambda point: [], tmp_path)
    make_trials(plan, [trial], [trial], None, pytest.fail)


@pytest.mark.parametrize(
    "vary, more, message",
    [
        ({"validation": [0.1, 0.2]}, {"trials": 2}, "numbers on different validation samples cannot be compared"),
        ({"local.lr": [0.1, 0.2]}, {"choose_by": "val_quality"}, "does not tell whether higher is better"),
    ],
)
def test_what_would_choose_wrongly_is_refused(
    vary: dict[str, object], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    world = {key: value for key, value in WORLD.items() if key not in vary}
    with pytest.raises(ConfigError, match=message):
        sweep(vary, out=tmp_path / "sweep", **world, **more)
    assert not list(tmp_path.glob("sweep/*/*"))


def test_directions() -> None:
    known = {"val_accuracy", "val_loss", "val_f1", "val_auroc", "val_calibration", "val_unseen_loss"}
    assert [name for name in known if not has_direction(name)] == [] and not has_direction("val_quality")


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna (extra sweep) is not installed")
    axes = axes_from({"local.lr": "log:1e-3..1"})
    Search(axes, "tpe", 0, tmp_path)
    Search(axes, "tpe", 0, tmp_path)
    with pytest.raises(ConfigError, match="search with seed = 0, not 1; name another folder"):
        Search(axes, "tpe", 1, tmp_path)
    with pytest.raises(ConfigError, match="search with axes"):
        Search(axes_from({"local.lr": "log:1e-3..10"}), "tpe", 0, tmp_path)
