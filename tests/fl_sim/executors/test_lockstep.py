"""Several runs as one batch: each equals the same run alone, and a run that fails does not affect the others."""

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from annotated_types import Ge
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from experiments.check.same_digests import last_of_each
from experiments.config.command_line import parse
from experiments.run import main, runs_of
from experiments.runs.summary import Summary
from fl_sim import load, tree
from fl_sim.errors import ConfigError
from fl_sim.executors import lockstep
from fl_sim.executors.lockstep import Lockstep
from fl_sim.learning.loss import Batch, Loss
from fl_sim.rounds.checkpoint import Checkpoints
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg

COMMON = (
    "--clients 10 --cohort 5 --partition dirichlet --partition.alpha 0.5 --rounds 3 --local.batch_size 16"
    " --local.momentum 0.5 --dtype float64 --quiet --json --system.stragglers 0.4"
)


def run(words: str, out: Path, capsys: Any, code: int = 0) -> list[Summary]:
    common = "--quiet --json" if words.endswith(".toml") else COMMON
    if "local.momentum=" in words or "--strategy maml" in words:  # an axis, or a setting that maml refuses
        common = common.replace(" --local.momentum 0.5", "")
    assert main(last_of_each([*common.split(), "--out", str(out), *words.split()])) == code
    summary = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return list(summary.get("runs", [summary]))


def distance(a: Summary, b: Summary) -> float:
    """Euclidean distance between the models of two runs."""
    return float(tree.norm(tree.sub(load(a["run_dir"]).model(), load(b["run_dir"]).model())))


@pytest.mark.parametrize(
    "strategy, axis",
    [
        ("fedavg", "local.lr=.01,.1"),
        ("fedavg", "local.weight_decay=0,.1;local.momentum=0,.9"),
        ("fedprox", "strategy.mu=0,1"),
        ("reptile", "strategy.epsilon=.3,1"),
        ("maml", "strategy.inner_lr=.01,.2"),
        ("perfedavg", "strategy.inner_lr=.01,.1"),
        ("maxpool", "server.lr=.5,1"),
        ("fedavg", "local.clip_norm=.05,.5"),
        ("local-only", "local.lr=.01,.1"),  # each client begins with the weights of its run's seed
    ],
)
def test_each_run_equals_the_same_run_alone(strategy: str, axis: str, tmp_path: Path, capsys: Any) -> None:
    base = f"--strategy {strategy} --seed 0,3 --partition.held_out 0.2 --personalize_steps 2"
    batch = run(f"{base} --vmap_over {axis}", tmp_path / "batch", capsys)
    assert len(batch) == 2 * 2 ** len(axis.split(";")) and len(
        {(s["digest"], s["personal_loss"]) for s in batch}
    ) == len(batch)
    for summary in batch:
        config = Path(summary["run_dir"]) / "config.toml"
        [own] = run(str(config), tmp_path / "own", capsys)
        assert distance(summary, own) < 1e-9
        for name in ("accuracy", "loss", "personal_accuracy", "personal_loss"):
            assert summary[name] == pytest.approx(own[name], abs=1e-9)
        assert (summary["engine"], summary["bits_changed"]) == ("vmap", False)
        here, there = load(summary["run_dir"]), load(own["run_dir"])
        assert list(here.clients["client"]) == list(there.clients["client"]) and len(here.rounds) == 4
        assert "fallback" not in set(here.events["event"])


def test_runs_may_differ_in_seeds_only_and_chunks_divide_the_batch(tmp_path: Path, capsys: Any) -> None:
    whole = run("--vmap_over seed=0..3", tmp_path, capsys)
    cut = run("--vmap_over seed=0..3 --chunk 7", tmp_path, capsys)
    assert [s["seed"] for s in whole] == [0, 1, 2, 3]
    assert max(distance(a, b) for a, b in zip(whole, cut, strict=True)) < 1e-9


def test_a_model_that_vmap_cannot_take_runs_one_after_another_and_says_why(tmp_path: Path, capsys: Any) -> None:
    words = [
        "--model",
        "tests.fl_sim.executors.test_lockstep:normed",
        *last_of_each([*COMMON.split(), "--rounds", "1"]),
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--vmap_over", "local.lr=.01,.1"]) == 0
    shown = capsys.readouterr()
    assert "note: one run after another, not as one batch: vmap cannot take BatchNorm" in shown.err
    assert [s["engine"] for s in json.loads(shown.out.strip().splitlines()[-1])["runs"]] == ["loop", "loop"]


def normed(inputs: tuple[int, ...], outputs: int) -> torch.nn.Module:
    width = int(torch.tensor(inputs).prod())
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(width, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, outputs)
    )


@dataclass
class Branching(FedAvg):
    """A rule whose code branches on a setting, which a batch of runs with several values cannot do."""

    pull: Annotated[float, Ge(0)] = 0.0

    def gradient(self, model: Tree, anchor: Tree, batch: Batch, loss: Loss) -> tuple[Tree, torch.Tensor, Tree]:
        grads, value, buffers = super().gradient(model, anchor, batch, loss)
        return (tree.scale(grads, 0.5) if self.pull > 0 else grads), value, buffers


def test_a_rule_that_branches_on_a_setting_trains_alone(tmp_path: Path, capsys: Any) -> None:
    name = "tests.fl_sim.executors.test_lockstep:Branching"
    batch = run(f"--strategy {name} --vmap_over strategy.pull=0,1", tmp_path, capsys)
    for summary in batch:
        [own] = run(str(Path(summary["run_dir"]) / "config.toml"), tmp_path / "own", capsys)
        assert distance(summary, own) < 1e-9
        events = load(summary["run_dir"]).events
        assert events.loc[events["event"] == "fallback", "note"].str.contains("not trained beside the other runs").any()


def test_a_run_that_diverges_fails_alone(tmp_path: Path, capsys: Any) -> None:
    batch = run("--vmap_over local.lr=.1,1e300", tmp_path, capsys, code=1)
    assert [s["status"] for s in batch] == ["completed", "failed"]
    assert "NaN" in batch[1]["error"] or "loss is" in batch[1]["error"] or "infinity" in batch[1]["error"]
    [own] = run("--local.lr .1 --engine vmap", tmp_path, capsys)
    assert distance(batch[0], own) < 1e-9


@pytest.mark.parametrize(
    "words, message",
    [
        ("--vmap_over local.lr", "must be KEY=A,B,C"),
        ("--vmap_over local.lr=a,b", "local.lr needs numbers between commas"),
        ("--vmap_over local.epochs=1,2", "local.epochs changes what is computed.*seed, local.lr"),
        ("--vmap_over local.clip_norm=0,1", "local.clip_norm = 0 means no clipping"),
        ("--vmap_over strategy.order=1,2 --strategy maml", "strategy.order changes what is computed"),
        ("--vmap_over local.lr=.1,-1", "local.lr = -1.0"),
        ("--vmap_over local.lr=.1,.2 --engine loop", "needs engine vmap, but engine = 'loop'"),
        ("--vmap_over local.lr=.1,.2 --strategy fedavg,fedprox", "one strategy"),
        ("--vmap_over seed=0,0", "names a seed twice"),
    ],
)
def test_bad_axes_are_refused_by_name(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(words.split())


def test_the_command(tmp_path: Path) -> None:
    words = "--rounds 1 --clients 4 --quiet --json --vmap_over local.lr=.01,.03,.1 --seed 0..4"
    command = [sys.executable, "-m", "experiments.run", *words.split(), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert (
        summary["status"] == "completed" and len(summary["runs"]) == 15 and len(list(tmp_path.glob("digits-*"))) == 15
    )


@pytest.mark.parametrize("cache_bytes", [1, 2**30])
def test_clients_train_together_whose_weights_fit_in_a_cache(
    cache_bytes: int, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    batch = Lockstep._train_batch
    monkeypatch.setattr(lockstep, "CACHE_BYTES", cache_bytes)
    monkeypatch.setattr(lockstep, "MIN_CLIENTS", 10)
    monkeypatch.setattr(
        Lockstep,
        "_train_batch",
        lambda self, parts: (sizes.append(sum(len(p.block.jobs) for p in parts)), batch(self, parts))[1],
    )
    summaries = run("--system.stragglers 0 --seed 0..3 --vmap_over local.lr=.01", tmp_path, capsys)
    assert sizes == ([10, 10] * 3 if cache_bytes == 1 else [20] * 3)
    assert not any(summary["bits_changed"] for summary in summaries)


def test_a_run_has_only_its_part_of_a_rounds_time_for_checkpoints(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds_per_round: list[float] = []
    monkeypatch.setattr(Checkpoints, "save", lambda self, checkpoint, seconds: seconds_per_round.append(seconds))
    summaries = run("--seed 0..3 --vmap_over local.lr=.01", tmp_path, capsys)
    rounds = [load(summary["run_dir"]).rounds["seconds"].iloc[1:] for summary in summaries]
    assert sorted(seconds_per_round) == pytest.approx(sorted(seconds / 4 for own in rounds for seconds in own))


class SendingInHook(FedAvg):
    """Sends messages inside a hook, then draws from the global generators how many clients take part."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        list(grid.send_and_receive(messages))
        draws = random.random() + np.random.random() + float(torch.rand(()))  # noqa: NPY002 as a user's strategy may
        return list(super().configure_train(server_round, arrays, config, grid))[: 1 + int(10 * draws) % 4]


def states() -> tuple[Any, str, str]:
    """States of the global generators."""
    return random.getstate(), repr(np.random.get_state()), repr(torch.get_rng_state().tolist())  # noqa: NPY002


def test_a_strategy_that_sends_messages_in_a_hook_draws_the_same_numbers_as_alone(tmp_path: Path, capsys: Any) -> None:
    words = "--strategy tests.fl_sim.executors.test_lockstep:SendingInHook --vmap_over seed=0..4"
    sweep = parse([*COMMON.split(), "--out", str(tmp_path), *words.split()])
    before = states()
    batch = [summary for summary, _ in runs_of(sweep)]
    assert states() == before
    for summary in batch:
        [own] = run(str(Path(summary["run_dir"]) / "config.toml"), tmp_path / "own", capsys)
        assert list(load(summary["run_dir"]).rounds["clients"][1:]) == list(load(own["run_dir"]).rounds["clients"][1:])
        assert distance(summary, own) < 1e-9
