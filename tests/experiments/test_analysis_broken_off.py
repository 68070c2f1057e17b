"""Analysis of runs that broke off, were repeated or forked, or differ in more than a strategy: nothing in silence."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments import analysis
from experiments.analysis.curves import curves
from fl_sim import load
from fl_sim.logs.writer import RoundLog

DONE = {"status": "completed"}
STOPPED = {"status": "stopped", "stopped": "interrupted"}


def make(
    parent: Path, name: str, rows: Sequence[dict[str, Any]], summary: dict[str, Any] | None = None, toml: str = ""
) -> Path:
    """A run with these rows, numbered from 0; ``name`` ends with its seed."""
    with RoundLog.create(parent, name, f"seed = {name[-1]}\n{toml}\n[strategy]\nname = '{name[:-1]}'\n") as log:
        for number, row in enumerate(rows):
            log.round({"round": number, "seconds": 1.0, **row})
        if summary is not None:
            log.summary(summary)
    return log.path


def accuracies(*values: float | None, digests: bool = True) -> list[dict[str, Any]]:
    return [{"accuracy": x, "digest": f"d{n}" if digests else None} for n, x in enumerate(values)]


def test_an_interrupted_run_in_a_mean_is_told(tmp_path: Path) -> None:
    make(tmp_path, "fedavg0", accuracies(0.1, 0.2, 0.3), DONE)
    make(tmp_path, "fedavg1", accuracies(0.1, 0.2), STOPPED)
    make(tmp_path, "fedprox0", accuracies(0.1, 0.2, 0.3), DONE)
    make(tmp_path, "fedprox1", accuracies(0.1, 0.3), {"status": "stopped", "stopped": "stop.target = 0.3"})
    what = "means of strategy = fedavg contain runs that have not reached round 2 of the others: "
    with pytest.warns(
        UserWarning, match=what + r".* \(interrupted, round 1\); leave them out, or resume them"
    ) as found:
        analysis.compare([tmp_path])
    assert len(found) == 1  # a run that a rule has ended is complete


def test_a_mean_over_fewer_runs_than_the_row_says_is_told(tmp_path: Path) -> None:
    make(tmp_path, "fedavg0", accuracies(0.1, 0.2), DONE)
    lacks = make(tmp_path, "fedavg1", accuracies(0.1, None), DONE)
    with pytest.warns(UserWarning, match="fedavg are over 2 runs, but those of accuracy are not: " + lacks.name):
        (row,) = analysis.compare([tmp_path]).to_dict("records")
    assert (row["seeds"], row["accuracy"]) == (2, 0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analysis.compare([lacks])


def test_the_final_model_has_no_other_round_s_numbers_where_its_round_has_no_digest(tmp_path: Path) -> None:
    rows = accuracies(0.1, 0.5, None, digests=False)
    assert str(analysis.outcome(load(make(tmp_path, "fedavg0", rows, STOPPED)))["accuracy"]) == "nan"
    assert analysis.outcome(load(make(tmp_path, "fedavg0", rows)))["accuracy"] == 0.5  # so far


def test_a_run_that_goes_on_counts_rounds_to_its_own_target(tmp_path: Path) -> None:
    for summary, expected in ((None, 1.0), ({**DONE, "rounds_to_target": 1}, 1.0)):
        log = load(make(tmp_path, "fedavg0", accuracies(0.1, 0.5, 0.6), summary, "target = 0.4"))
        assert analysis.outcome(log)["rounds_to_target"] == expected
    log = load(make(tmp_path, "fedavg0", [{"loss": 1.0}], None, "target = 0.4"))  # a regression
    assert str(analysis.outcome(log)["rounds_to_target"]) == "nan"


def test_what_a_log_does_not_hold_costs_not_nothing(tmp_path: Path) -> None:
    log = load(make(tmp_path, "fedavg0", [{"accuracy": x, "class_accuracy": [x, 1.0]} for x in (0.1, 0.5, 0.6)]))
    assert analysis.to_target(log, 0.5) == (1, 1.0, None, None)  # no round has bytes
    with pytest.raises(ValueError, match="metric = 'class_accuracy': .* it has round, accuracy, seconds"):
        analysis.to_target(log, 0.5, "class_accuracy")  # a list in each round
    fork = RoundLog.create(tmp_path, "fork", "seed = 0")
    for number in (5, 6):
        fork.round({"round": number, "accuracy": 0.1 * number, "seconds": 1.0, "bytes_up": 7, "bytes_down": 7})
    assert analysis.to_target(fork.path, 0.6) == (6, None, None, None)


def test_settings_that_differ_between_strategies_are_shown(tmp_path: Path) -> None:
    table = "engine = '{}'\n[local]\nlr = {}\n[task]\nname = '{}'"
    for name, values in (("fedavg0", ("loop", 0.1, "digits")), ("fedprox0", ("vmap", 0.2, "digits"))):
        make(tmp_path, name, accuracies(0.1), DONE, table.format(*values))
    make(tmp_path, "maml0", accuracies(0.1), DONE, "[task]\nname = 'digits'")  # it has no local.lr
    found = analysis.compare([tmp_path])
    assert list(found.columns[:3]) == ["strategy", "local.lr", "status"]  # not how it was computed: engine
    assert found["local.lr"].tolist()[:2] == [0.1, 0.2] and pd.isna(found["local.lr"][2])


def test_the_partition_labels_of_an_older_run_is_another_one(tmp_path: Path) -> None:
    """Before ``digest_every`` existed, ``labels`` meant today's ``labels-equal``."""
    summary, today = {**DONE, "partition": "labels"}, "digest_every = 1\n"
    partition = "[partition]\nname = '{}'"
    old = make(tmp_path, "fedavg0", accuracies(0.1), summary, partition.format("labels"))
    new = make(tmp_path, "fedavg1", accuracies(0.1), summary, today + partition.format("labels"))
    equal = make(tmp_path, "fedavg2", accuracies(0.1), DONE, today + partition.format("labels-equal"))
    assert analysis.tidy(old, new, equal)["partition"].tolist() == ["labels-equal", "labels", "labels-equal"]
    assert analysis.compare([old, new])["partition.name"].tolist() == ["labels-equal", "labels"]
    assert load(old).config["partition"] == {"name": "labels"}


def test_of_repeats_one_that_has_ended_counts_and_other_models_are_told(tmp_path: Path) -> None:
    first = make(tmp_path, "fedavg0", accuracies(0.1, 0.4), {**DONE, "digest": "a"})
    failed = make(tmp_path, "fedavg0", accuracies(0.1), {"status": "failed", "digest": None})
    assert analysis.compare([first, failed])["accuracy"].tolist() == [0.4]
    other = make(tmp_path, "fedavg0", accuracies(0.1, 0.7), {**DONE, "digest": "b"})
    with pytest.warns(UserWarning, match=f"{first.name} and {other.name} have one seed and the same settings, and oth"):
        assert analysis.compare([first, other])["accuracy"].tolist() == [0.7]


def test_a_curve_ends_where_its_first_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: figures.append(self))
    personal = [{"accuracy": x, "personal_accuracy_before": x, "personal_accuracy": x} for x in (0.1, 0.2, 0.3)]
    runs = [make(tmp_path, "fedavg0", personal, DONE), make(tmp_path, "fedavg1", accuracies(0.3, 0.4), STOPPED)]
    with pytest.warns(
        UserWarning, match="the curve of fedavg ends with round 1, the last in which all 2 runs have acc"
    ):
        curves(runs, tmp_path / "a.png")
    (axes,) = figures[0].axes  # one run has no personal evaluation: no bars of the other alone
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_xydata()), [[0, 0.2], [1, 0.3]])
    empty = make(tmp_path, "fedavg2", [])
    with pytest.raises(ValueError, match="fedavg: in no round all of its 2 runs have accuracy; leave out those"):
        curves([runs[0], empty], tmp_path / "b.png")


def test_a_metric_s_name_or_the_caller_says_whether_it_is_to_fall(tmp_path: Path) -> None:
    rows = [{"mse": 0.5 - n / 10, "f1": n / 10, "loss": 0.5 - n / 10} for n in range(4)]
    log = load(make(tmp_path, "fedavg0", rows))
    assert analysis.to_target(log, 0.3, "loss").rounds == analysis.to_target(log, 0.3, "mse", at_most=True).rounds == 2
    assert (
        analysis.to_target(log, 0.2, "f1").rounds == 2
        and analysis.to_target(log, 0.3, "mse", at_most=False).rounds == 0
    )
    with pytest.raises(ValueError, match="metric = 'mse': its name does not say whether it is to fall .* at_most=True"):
        analysis.to_target(log, 0.3, "mse")


def test_a_tidy_table_tells_folders_of_one_name_and_columns_of_one_name_apart(tmp_path: Path) -> None:
    one = make(tmp_path / "a", "fedavg0", [{"accuracy": 0.5, "alpha": 7.0}])
    (tmp_path / "b").mkdir()
    other = one.rename(tmp_path / "b" / one.name)
    one = make(tmp_path / "a", "fedavg1", [{"accuracy": 0.5}]).rename(one)
    table = analysis.tidy(one, other, other)
    assert table["run"].tolist() == [str(one), str(other), str(other)] and table["seed"].tolist() == [1, 0, 0]
    assert table["own_alpha"].tolist()[1] == 7.0 and table["alpha"].isna().all()
    assert analysis.tidy(one)["run"].tolist() == [one.name]


def test_bytes_that_no_round_has_are_not_0(tmp_path: Path) -> None:
    found = analysis.outcome(load(make(tmp_path, "fedavg0", accuracies(0.1, 0.2))))
    assert str(found["mb_up"]) == "nan" and found["seconds"] == 2.0
