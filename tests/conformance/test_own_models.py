"""Clients' own models in whole runs: continued, replayed, run as one batch, refused, and what the log says of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments import replay
from experiments.check.comparisons import assert_close
from experiments.run import main
from fl_sim import load, tree
from fl_sim.rounds.checkpoint import latest
from fl_sim.tree import Tree

COMMON = (
    "--task digits --clients 4 --cohort 2 --model tests.fl_sim.small_federation:grouped --local.steps 2 --quiet --json"
    " --dtype float64 --partition.held_out 0.2 --personalize_steps 1 --personalize_every 1 --checkpoint_every 1"
)


def summary_of(command: str, capsys: Any) -> dict[str, Any]:
    assert main(command.split()) == 0
    return dict(json.loads(capsys.readouterr().out.strip().splitlines()[-1]))


def states_of(folder: str) -> dict[int, Tree]:
    checkpoint, _ = latest(Path(folder))
    assert checkpoint is not None
    return dict(checkpoint.states)


@pytest.mark.parametrize("strategy", ["fedbn", "ditto", "local-only"])
def test_a_run_that_goes_on_keeps_them_and_a_client_is_replayed(strategy: str, tmp_path: Path, capsys: Any) -> None:
    words = f"{COMMON} --strategy {strategy} --engine loop --out {tmp_path}"
    whole = summary_of(f"{words} --rounds 3", capsys)
    half = summary_of(f"{words} --rounds 2", capsys)
    again = summary_of(f"--resume {half['run_dir']} --rounds 3 --quiet --json", capsys)
    assert again["digest"] == whole["digest"]
    first, second = states_of(whole["run_dir"]), states_of(again["run_dir"])
    assert {c: tree.digest(x) for c, x in first.items()} == {c: tree.digest(x) for c, x in second.items()}
    log, own = load(again["run_dir"]), [c for c in load(whole["run_dir"]).rounds if c.startswith("personal_")]
    assert own and log.rounds[own].equals(load(whole["run_dir"]).rounds[own])
    rows = log.clients[(log.clients["round"] == 3) & (log.clients["phase"] == "train")]
    seen = set(log.clients[(log.clients["round"] < 3) & (log.clients["phase"] == "train")]["client"])
    visited = [int(c) for c in rows["client"] if c in seen]
    assert visited and replay.replay(again["run_dir"], 3, visited[0]).agreement == "bit for bit"


def test_several_strengths_as_one_batch(tmp_path: Path, capsys: Any) -> None:
    words = f"{COMMON} --strategy ditto --rounds 2 --engine vmap --out {tmp_path}"
    together = summary_of(f"{words} --vmap_over strategy.lam=.1,2", capsys)["runs"][1]
    alone = summary_of(f"{words} --strategy.lam 2", capsys)
    for client, state in states_of(alone["run_dir"]).items():
        assert_close(state, states_of(together["run_dir"])[client], f"client {client}")
    rows = [load(run["run_dir"]).rounds.iloc[-1] for run in (alone, together)]
    assert rows[0]["personal_loss_before"] == pytest.approx(rows[1]["personal_loss_before"], rel=1e-9)


def test_what_a_run_says_of_leaves_that_stay_at_home(tmp_path: Path, capsys: Any) -> None:
    told = {}
    for strategy in ("fedbn", "local-only"):
        summary = summary_of(f"{COMMON} --strategy {strategy} --rounds 1 --out {tmp_path}", capsys)
        events = load(summary["run_dir"]).events.query("event == 'model'")
        told[strategy] = " ".join(events.reason)
    said = "2 of the model's 6 arrays stay with their clients (2.weight, 2.bias), and the central evaluation uses their"
    assert said in told["fedbn"] and "the whole model stays with its client" in told["local-only"]


def test_a_network_without_normalisation_is_refused_before_any_work(tmp_path: Path, capsys: Any) -> None:
    assert main(f"--strategy fedbn --model lr --rounds 1 --out {tmp_path}".split()) == 2
    assert "strategy.name = 'fedbn': the network has no normalisation layer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_bytes_that_are_predicted_are_those_of_a_round(tmp_path: Path, capsys: Any) -> None:
    for strategy in ("fedbn", "scaffold"):
        words = f"{COMMON} --strategy {strategy} --rounds 1 --out {tmp_path}"
        plan = summary_of(f"{words} --dry-run", capsys)
        row = load(summary_of(words, capsys)["run_dir"]).rounds.iloc[-1]
        assert [plan[f"{k}_per_round"] for k in ("bytes_down", "bytes_up")] == [row["bytes_down"], row["bytes_up"]]
