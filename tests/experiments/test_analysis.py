"""Analysis of round logs: the expected numbers are computed by hand, on runs of three rounds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import analysis
from experiments.analysis.__main__ import main as analysis_main
from experiments.analysis.curves import curves
from fl_sim.logs.columns import COLUMNS
from fl_sim.logs.round_columns import OF_STRATEGIES
from fl_sim.logs.writer import RoundLog

ROOT = Path(__file__).parents[2]


def make(
    parent: Path,
    strategy: str,
    seed: int,
    accuracies: list[float | None],
    summary: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A run whose round r takes 2 s (1 s more to evaluate), 1 MB down and 0.5 MB up."""
    extra = "".join(f"{name} = {value}\n" for name, value in settings.items())
    config = (
        f'seed = {seed}\nout = "{strategy}{seed}"\n[task]\nname = "digits"\n[strategy]\nname = "{strategy}"\n{extra}'
    )
    with RoundLog.create(parent, f"{strategy}-s{seed}", config) as log:
        for n, accuracy in enumerate(accuracies):
            work = (
                {"seconds": 2.0, "bytes_down": 1_000_000, "bytes_up": 500_000}
                if n
                else {"seconds": 0.0, "bytes_down": 0, "bytes_up": 0}
            )
            loss = 2.0 - n / 2
            log.round(
                {
                    "round": n,
                    "accuracy": accuracy,
                    "loss": loss,
                    "evaluate_seconds": 1.0,
                    "digest": f"{strategy}{seed}{n}" * 8,
                    **work,
                }
            )
        if summary is not None:
            log.summary(summary)
    return log.path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    done = {"status": "completed"}
    return [
        make(tmp_path, "fedavg", 0, [0.1, 0.5, 0.8], done),
        make(tmp_path, "fedavg", 1, [0.1, 0.7, 0.9], done),
        make(tmp_path, "fedprox", 0, [0.1, None, 0.6], done, mu=0.1),
    ]


def test_tidy_has_every_round_of_every_run_with_the_facts_of_its_run(runs: list[Path]) -> None:
    table = analysis.tidy(*runs)
    assert len(table) == 9
    assert table["run"].tolist() == [run.name for run in runs for _ in range(3)]
    assert table[["strategy", "seed", "task"]].drop_duplicates().to_numpy().tolist() == [
        ["fedavg", 0, "digits"],
        ["fedavg", 1, "digits"],
        ["fedprox", 0, "digits"],
    ]
    assert table["accuracy"].tolist()[:6] == [0.1, 0.5, 0.8, 0.1, 0.7, 0.9] and np.isnan(table["accuracy"][7])
    assert table["accuracy"].dtype == np.float64 and table["alpha"].isna().all()


def test_a_folder_of_runs_stands_for_its_runs(runs: list[Path]) -> None:
    pd.testing.assert_frame_equal(analysis.tidy(runs[0].parent), analysis.tidy(*sorted(runs)))


@pytest.mark.parametrize(
    "target, metric, expected",
    [
        (0.5, "accuracy", (1, 2.0, 1_000_000, 500_000)),  # reached exactly, in round 1
        (0.51, "accuracy", (2, 4.0, 2_000_000, 1_000_000)),
        (0.1, "accuracy", (0, 0.0, 0, 0)),  # the initial model
        (0.81, "accuracy", (None, None, None, None)),
        (1.5, "loss", (1, 2.0, 1_000_000, 500_000)),  # a loss is to fall: 2, 1.5, 1
    ],
)
def test_to_target_is_the_first_round_and_its_sums(
    runs: list[Path], target: float, metric: str, expected: tuple[Any, ...]
) -> None:
    assert analysis.to_target(runs[0], target, metric) == expected


def test_to_target_refuses_metrics_that_the_run_does_not_have(runs: list[Path]) -> None:
    for metric in ("f1", "digest", "round", "val_accuracy"):
        with pytest.raises(ValueError, match=f"metric = '{metric}': .* it has round, accuracy"):
            analysis.to_target(runs[0], 0.5, metric)


def test_interval_is_students(runs: list[Path]) -> None:
    # accuracies 0.8 and 0.9: std = 0.1 / sqrt 2; half = t(0.975, 1) * std / sqrt 2 = 12.7062 * 0.05
    last = analysis.tidy(*runs).query("round == 2")
    table = analysis.interval(last, by="strategy").set_index("strategy")
    row = table.loc["fedavg"]
    assert row["n"] == 2
    np.testing.assert_allclose(
        [row["mean"], row["std"], row["low"], row["high"]],
        [0.85, 0.1 / 2**0.5, 0.85 - 0.63531, 0.85 + 0.63531],
        atol=1e-5,
    )
    assert table.loc["fedprox", "n"] == 1 and table.loc["fedprox", ["std", "low", "high"]].isna().all()


def test_interval_takes_no_rounds_for_samples(runs: list[Path]) -> None:
    table = analysis.tidy(*runs)
    with pytest.raises(ValueError, match="several rows with strategy = fedavg, seed = 0"):
        analysis.interval(table, by="strategy")
    by_round = analysis.interval(table, by=["strategy", "round"]).set_index(["strategy", "round"])
    assert by_round.loc[("fedavg", 1), "mean"] == pytest.approx(0.6)
    assert ("fedprox", 1) not in by_round.index  # not evaluated in that round


def test_compare_is_one_row_a_strategy_over_seeds(runs: list[Path]) -> None:
    table = analysis.compare(runs, target=0.8).set_index("strategy")
    both, one = table.loc["fedavg"], table.loc["fedprox"]
    assert (both["seeds"], both["reached"], both["accuracy"]) == (2, 2, pytest.approx(0.85))
    assert both["accuracy_std"] == pytest.approx(0.1 / 2**0.5) and both["rounds_to_target"] == 2
    # three evaluations of 1 s, two rounds of 2 s, 1 MB and 0.5 MB
    assert (both["seconds"], both["mb_down"], both["mb_up"]) == (7.0, 2.0, 1.0)
    assert both["digest"] is None or pd.isna(both["digest"])
    assert (
        one["digest"] == "fedprox02" * 8
        and one["reached"] == 0
        and np.isnan(one["rounds_to_target"])
        and one["accuracy"] == 0.6
    )


def test_compare_gives_no_other_models_accuracy_to_the_final_one(tmp_path: Path) -> None:
    for name, summary in (("ended", {"status": "stopped"}), ("running", None)):
        make(tmp_path, name, 0, [0.1, 0.5, None], summary)
    table = analysis.compare([tmp_path]).set_index("strategy")
    assert np.isnan(table.loc["ended", "accuracy"]) and table.loc["running", "accuracy"] == 0.5  # so far


def test_compare_tells_settings_apart_and_the_same_run_once(tmp_path: Path) -> None:
    for mu, accuracy in [(0.1, 0.5), (0.1, 0.6), (1.0, 0.7)]:
        make(tmp_path, "fedprox", 0, [accuracy], {"status": "completed"}, mu=mu)
    make(tmp_path, "fedavg", 0, [0.2])
    table = analysis.compare([tmp_path])
    assert table[["strategy", "strategy.mu", "accuracy", "seeds", "status"]].fillna(-1).to_numpy().tolist() == [
        ["fedavg", -1, 0.2, 1, "running"],
        ["fedprox", 0.1, 0.6, 1, "completed"],
        ["fedprox", 1.0, 0.7, 1, "completed"],
    ]


def test_the_table_is_plain_and_aligned(runs: list[Path]) -> None:
    text = analysis.format_table(analysis.compare(runs, target=0.85), width=None)
    rows = [
        "strategy  seeds          accuracy              loss  rounds_to_target "
        "    seconds       mb_up     mb_down  digest",
        "--------  -----  ----------------  ----------------  ---------------- "
        " ----------  ----------  ----------  ------------",
        "fedavg        2  0.8500 +- 0.0707  1.0000 +- 0.0000        2 (1 of 2)  7.0 +- 0.0  1.0 +- 0.0  2.0 +- 0.0  -",
        "fedprox       1            0.6000            1.0000                 - "
        "        7.0         1.0         2.0  fedprox02fed",
    ]
    assert text.splitlines() == rows


def test_a_regression_is_compared_by_loss(tmp_path: Path) -> None:
    run = make(tmp_path, "fedavg", 0, [None, None])
    table = analysis.format_table(analysis.compare([run]))
    assert "accuracy" not in table and "1.5000" in table
    curves([run], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_curves_draw_a_line_a_strategy_and_bars_where_clients_were_fine_tuned(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: figures.append(self))
    with RoundLog(runs[2]) as log:
        log.round({"round": 3, "accuracy": 0.7, "personal_accuracy_before": 0.5, "personal_accuracy": 0.75})
    assert curves(runs[:2], tmp_path / "new" / "a.png").axes[0].get_ylabel() == "test accuracy"
    curves(runs, tmp_path / "b.png")
    plain, both = figures
    assert len(plain.axes) == 1 and len(both.axes) == 2
    lines = {line.get_label(): line.get_xydata().tolist() for line in both.axes[0].lines}
    assert list(lines) == ["fedavg (n = 2)", "fedprox"]
    np.testing.assert_allclose(lines["fedavg (n = 2)"], [[0, 0.1], [1, 0.6], [2, 0.85]])
    np.testing.assert_allclose(lines["fedprox"], [[0, 0.1], [2, 0.6], [3, 0.7]])
    band = both.axes[0].collections[0].get_paths()[0].get_extents()  # of fedavg: its lowest and highest seed
    assert (band.ymin, band.ymax) == (0.1, 0.9)
    assert [bar.get_height() for bar in both.axes[1].patches] == [0.5, 0.75]
    with pytest.raises(ValueError, match="metric = 'f1': no run has it"):
        curves(runs, tmp_path / "c.png", metric="f1")


def test_the_command_prints_the_table_and_draws(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis_main([*map(str, runs), "--target", "0.8", "--png", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out
    assert printed == analysis.format_table(analysis.compare(runs, 0.8)) + f"\n{tmp_path / 'x.png'}\n"
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert analysis_main([str(tmp_path / "gone")]) == 2
    assert f"{str(tmp_path / 'gone')!r} is not the folder of a run" in capsys.readouterr().err


def test_a_mean_with_a_run_that_was_killed_earlier_is_told(tmp_path: Path) -> None:
    for seed, rounds, ended in ((0, 4, True), (1, 2, False)):
        with RoundLog.create(tmp_path, f"seed{seed}", f"seed = {seed}\nstrategy.name = 'fedavg'\n") as log:
            for number in range(rounds):
                log.round({"round": number, "accuracy": 0.1 * number})
            if ended:
                log.summary({"status": "completed", "strategy": "fedavg", "seed": seed})
    with pytest.warns(UserWarning, match=r"means of strategy = fedavg contain .* round 3 .*: seed1.*killed, round 1\)"):
        assert analysis.compare([tmp_path])["seeds"].tolist() == [2]


def test_bad_input_ends_the_process_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.analysis", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert (
        done.returncode == 2
        and done.stdout == ""
        and "is not the folder of a run" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_real_run_has_only_documented_columns_and_keys(tmp_path: Path) -> None:
    settings = "--rounds 2 --clients 6 --cohort 3 --holdout_clients 1 --partition.held_out 0.2 "
    settings += "--personalize_steps 2 --validation 0.1 --set_metrics class_accuracy --evaluate_train --engine vmap"
    settings += " --log_drift true --validation_clients 1"
    command = [sys.executable, "-m", "experiments.run", *settings.split(), "--quiet", "--json", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (log,) = analysis.read(tmp_path)
    for table in ("rounds", "clients"):
        assert list(log[table].columns) == list(COLUMNS[table])
    assert set(log.summary) <= set(COLUMNS["summary"])
    last = log.rounds.iloc[-1]
    asynchronous = ("version", "staleness_mean", "staleness_max", "in_flight")
    codecs = ("bytes_up_raw", "bytes_down_raw", "train_codec_error")
    others = (*OF_STRATEGIES, *asynchronous, *codecs, "gpu_mb")  # of a few strategies, of codecs, of a GPU
    used = [name for name in COLUMNS["rounds"] if name not in others]
    assert log.rounds["round"].tolist() == [0, 1, 2] and not last[used].isna().any()
    train, personal = (log.clients[log.clients["phase"] == phase] for phase in ("train", "personal"))
    assert len(train) == 6 and set(train["status"]) == {"completed"}  # 2 rounds x 3 clients
    assert train.groupby("round")["examples"].sum().tolist() == log.rounds["examples"].tolist()[1:]
    assert not train[["examples", "steps", "loss", "update_norm", "weight", "block"]].isna().any(axis=None)
    assert len(personal) == 6 and personal["unseen"].eq(True).sum() == 1
    assert personal["accuracy"].between(0, 1).all() and last["digest"] == log.summary["digest"]
    assert log.config["engine"] == log.summary["engine"] == "vmap"  # auto, resolved
    known = {"strategy": "fedavg", "seed": 0, "task": "digits", "model": "mlp", "partition": "iid", "alpha": None}
    assert analysis.facts(log) == known | {"engine": log.summary["engine"]}


@pytest.mark.parametrize("target", ["85", "nan", "0"])
def test_a_target_that_is_no_fraction_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert analysis_main(["nowhere", "--target", target]) == 2
    assert "is an accuracy, a fraction above 0" in capsys.readouterr().err
