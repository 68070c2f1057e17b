"""A registered client costs nothing: runs, plans and statistics of a billion clients."""

import cProfile
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clients.shares import as_partition, sampled_clients
from experiments import partition as partition_command
from experiments.run import main, run
from fl_sim import Partition, tree
from fl_sim.errors import ConfigError
from fl_sim.population.partition import Resampled

BILLION = 10**9
SHARED = ["--task", "digits", "--model", "lr", "--partition", "resample", "--partition.samples_per_client", "8"]


def go(out: Path, **settings: Any) -> Any:
    """A run of a billion clients, 5 a round; 3 of those that train and 3 of the held-out tenth are fine-tuned."""
    return run(
        task="digits",
        model="lr",
        partition={"name": "resample", "samples_per_client": 8, "held_out": 0.25},
        out=str(out),
        **{
            "clients": BILLION,
            "holdout_clients": BILLION // 10,
            "cohort": 5,
            "rounds": 2,
            "dtype": "float64",
            **settings,
        },
        local={"batch_size": 4},
        personalize_steps=2,
        personalize_clients=3,
    )


def test_a_billion_clients_train_and_the_engines_agree(tmp_path: Path) -> None:
    looped, batched = (go(tmp_path, engine=engine) for engine in ("loop", "vmap"))
    assert looped.summary["status"] == "completed" and float(tree.norm(tree.sub(looped.model, batched.model))) < 1e-9
    last = looped.log.rounds.iloc[-1]
    assert (last["completed"], last["examples"], last["personal_clients"], last["unseen_clients"]) == (5, 5 * 6, 3, 3)
    clients = looped.log.clients
    assert (
        clients["client"].nunique() == 16 and clients["client"].max() > BILLION // 100
    )  # 2 x 5 trained, 6 were fine-tuned
    unseen = clients["unseen"].eq(True)
    assert (clients["client"][unseen] >= BILLION - BILLION // 10).all() and (
        clients["client"][~unseen] < BILLION - BILLION // 10
    ).all()


def test_a_client_is_the_same_however_many_others_there_are(tmp_path: Path) -> None:
    few, many = (go(tmp_path, clients=n, holdout_clients=0, cohort=0 if n == 5 else 5, rounds=1) for n in (5, BILLION))
    assert (
        few.log.clients["client"].head(5).tolist() == [0, 1, 2, 3, 4]
        and many.summary["digest"] != few.summary["digest"]
    )
    assert Resampled(100, 5, 8, 0).client(3).tolist() == Resampled(100, BILLION, 8, 0).client(3).tolist()


def test_a_run_does_as_much_work_whatever_is_registered(tmp_path: Path) -> None:
    """Counted in calls of functions, which do not depend on how busy the machine is."""
    counts = []
    for clients in (BILLION, 10_000, BILLION):  # the first one warms up
        profile = cProfile.Profile()
        profile.runcall(go, tmp_path, clients=clients, holdout_clients=clients // 10)
        counts.append(sum(entry.callcount for entry in profile.getstats()))
    assert abs(counts[2] - counts[1]) < 0.02 * counts[1]


def test_a_plan_of_a_billion_clients_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *SHARED,
        "--clients",
        str(BILLION),
        "--cohort",
        "50",
        "--partition.held_out",
        "0.25",
        "--out",
        str(tmp_path),
        "--dry-run",
    ]
    assert main([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["clients"], plan["samples_min"], plan["samples_median"], plan["samples_max"]) == (BILLION, 6, 6.0, 6)
    assert plan["held_out_samples"] == 2 * BILLION and plan["blocks"] == 4


def test_the_plan_of_a_partition_that_is_written_down_is_what_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--task",
        "digits",
        "--partition",
        "quantity",
        "--partition.held_out",
        "0.2",
        "--clients",
        "20",
        "--holdout_clients",
        "3",
    ]
    assert main([*words, "--out", str(tmp_path), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert partition_command.main([*words, "--out", str(tmp_path), "--quiet", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    rows = pd.read_csv(Path(numbers["picture"]).parent / "clients.csv")
    training = (rows["samples"] - rows["held_out"])[:17]
    expected = (training.min(), training.median(), training.max(), rows["held_out"].sum())
    assert (plan["samples_min"], plan["samples_median"], plan["samples_max"], plan["held_out_samples"]) == expected


def test_statistics_are_of_some_of_the_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        partition_command.main([*SHARED, "--clients", str(BILLION), "--out", str(tmp_path), "--quiet", "--json"]) == 0
    )
    numbers = json.loads(capsys.readouterr().out)
    assert (numbers["clients"], numbers["samples"], numbers["shown"]) == (BILLION, 8 * BILLION, 1000)
    assert (numbers["min"], numbers["median"], numbers["max"]) == (8, 8, 8)
    rows = pd.read_csv(Path(numbers["picture"]).parent / "clients.csv")
    assert (
        len(rows) == 1000
        and rows["client"].is_monotonic_increasing
        and rows["client"].max() < BILLION
        and set(rows["samples"]) == {8}
    )


def test_all_clients_are_looked_at_where_each_sample_has_one_owner() -> None:
    class Sharing(Resampled):
        """Draws for clients that share samples."""

    assert (
        sampled_clients(Sharing(10, 5, 2, 0)) == range(5)
        and len(sampled_clients(Sharing(10, BILLION, 2, 0), most=7)) == 7
    )
    many = Partition.of([[c] for c in range(3000)])  # type: ignore[misc]
    assert sampled_clients(many) == range(3000)


def test_draws_of_samples_that_there_are_not_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"partition\.name = 'mine': index 10; indices must be numbers of 0\.\.9"):
        as_partition(Resampled(11, BILLION, 20, 0), "mine", 10)
    with pytest.raises(ConfigError, match=r"partition\.name = 'mine': 5 of 5 clients own no sample"):
        as_partition(Resampled(10, 5, 0, 0), "mine", 10)
    with pytest.raises(ConfigError, match=r"partition\.name = 'mine': 0 of 0 clients own no sample"):
        as_partition(Resampled(10, 0, 3, 0), "mine", 10)
    assert len(as_partition(Resampled(10, BILLION, 20, 0), "mine", 10)) == BILLION
