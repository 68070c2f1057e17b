"""What a fork takes over: the model always, states where the numbers are the same; what cannot be done is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.config.recipe_files import make
from experiments.run import Outcome, main, run
from experiments.runs.forks.fork import settings_now, settings_then, trained_before
from fl_sim import from_arrays, load
from fl_sim.errors import ConfigError
from fl_sim.rounds import checkpoint
from fl_sim.tree import Tree
from strategies.base.strategy import Strategy
from tests.conformance.stateful import Remembers

# Each client's samples are all alike, so that no draw of a round changes what the client computes.
X = torch.arange(1.0, 5).repeat_interleave(4).double().reshape(16, 1) / 4
TASK = from_arrays(X, 2 * X, clients=torch.arange(4).repeat_interleave(4), name="lines")
FLOWER = "flwr.serverapp.strategy:FedAdam"


def lines(inputs: Any, outputs: Any) -> nn.Module:
    """One weight, which starts at the seed's value."""
    return nn.Linear(1, 1, bias=False)


def trained(out: Path, rounds: int = 3, **settings: Any) -> Outcome:
    common = {"dtype": "float64", "local.batch_size": 0, "engine": "vmap", "out": out, "checkpoint_keep": 0}
    common |= {"task": TASK, "model": lines, "checkpoint_every": 1}
    outcome = run(rounds=rounds, **{**common, **settings})
    assert isinstance(outcome, Outcome)
    return outcome


def fork(base: Outcome, server_round: int, out: Path, **settings: Any) -> Outcome:
    return trained(out, fork=f"{base.summary['run_dir']}@{server_round}", **settings)


def starting_at(model: Tree) -> Any:
    """A function that makes the network with these weights."""

    def made(inputs: Any, outputs: Any) -> nn.Module:
        module = lines(inputs, outputs).double()
        module.load_state_dict(model)
        return module

    return made


@pytest.mark.parametrize(
    "strategy, changed",
    [
        ({"strategy": "maml", "strategy.optimizer": "adam"}, {"strategy.outer_lr": 0.03}),
        ({"strategy": "maml", "strategy.optimizer": "adam"}, {"server.lr": 0.3}),
        ({"strategy": FLOWER, "strategy.beta_1": 0.9, "strategy.beta_2": 0.99}, {"strategy.eta": 0.03}),
    ],
)
def test_a_changed_number_of_the_server_restarts_moments_and_steps(
    strategy: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    """Two rounds of the fork are the first two of a new run that starts from the checkpoint's model."""
    base = trained(tmp_path / "base", **strategy)
    second = fork(base, 2, tmp_path / "fork", rounds=4, **strategy, **changed)
    begin, _ = checkpoint.latest(Path(base.summary["run_dir"]), 2)
    assert begin is not None
    fresh = trained(tmp_path / "fresh", 2, **{**strategy, **changed, "model": starting_at(dict(begin.model))})
    torch.testing.assert_close(second.model, fresh.model, rtol=1e-12, atol=0)
    same = fork(base, 2, tmp_path / "same", rounds=4, **strategy)
    longer = trained(tmp_path / "longer", 4, **strategy)
    assert same.summary["digest"] == longer.summary["digest"]
    assert float((same.model["weight"] - second.model["weight"]).abs()) > 1e-4


def test_a_resumed_fork_counts_steps_from_the_fork(tmp_path: Path) -> None:
    words = f"--task synthetic --clients 3 --strategy maml --strategy.optimizer adam --out {tmp_path} --quiet"
    assert main([*words.split(), "--rounds", "2", "--checkpoint_keep", "0", "--checkpoint_every", "1"]) == 0
    [base] = tmp_path.iterdir()
    forked = ["--fork", f"{base}@1", "--strategy.outer_lr", "0.01", "--quiet"]
    assert main([*forked, "--rounds", "2", "--out", str(tmp_path / "short")]) == 0
    [short] = (tmp_path / "short").iterdir()
    assert main(["--resume", str(short), "--rounds", "3", "--quiet"]) == 0
    assert main([*forked, "--rounds", "3", "--out", str(tmp_path / "long")]) == 0
    [long] = (tmp_path / "long").iterdir()
    assert load(short).summary["digest"] == load(long).summary["digest"]


def test_the_fork_s_own_numbers_act_and_the_state_stays(tmp_path: Path) -> None:
    """Of two clients a round by other seeds and weights, with the moments of the checkpoint."""
    strategy = {"strategy": FLOWER, "strategy.beta_1": 0.9, "partition.held_out": 0.25, "personalize_steps": 1}
    base = trained(tmp_path / "base", 2, **strategy)
    trained_by = {
        n: load(fork(base, 1, tmp_path / str(n), rounds=2, cohort=n, **strategy).summary["run_dir"]).rounds["clients"]
        for n in (2, 3)
    }
    assert {n: counts.iloc[-1] for n, counts in trained_by.items()} == {2: 2, 3: 3}
    own = {"strategy": "fedavg", "cohort": 2}
    ours = trained(tmp_path / "ours", 2, **own)
    digests = {
        str(changed): fork(ours, 1, tmp_path / str(number), rounds=2, **{**own, **changed}).summary["digest"]
        for number, changed in enumerate([{}, {"seed": 5}, {"cohort": 3}, {"server.lr": 0.5}, {"weighting": "uniform"}])
    }
    assert digests["{}"] == ours.summary["digest"] and len(set(digests.values())) == 5


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"partition.held_out": 0.5},
            "partition.held_out = 0.5: fork: 4 clients have states, which belong to the samples",
        ),
        ({"clients": 2}, "clients = 2: fork: 4 clients have states"),
        ({"dtype": "float32"}, "dtype = 'float32': fork: the states of .* are float64"),
        ({"model": nn.Linear(1, 1)}, "model.name = .*: the checkpoint of round 1 has bias of shape None"),
    ],
)
def test_what_states_and_model_do_not_allow_is_refused_before_anything_is_written(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    base = trained(tmp_path / "base", 2, strategy=Remembers())
    with pytest.raises(ConfigError, match=message):
        fork(base, 1, tmp_path / "fork", **{"strategy": Remembers(), **changed})
    assert not (tmp_path / "fork").exists()
    other = {k: v for k, v in changed.items() if k != "model"}  # without the states all of them act
    assert fork(base, 1, tmp_path / "other", **{"strategy": "fedavg", **other}).summary["status"] == "completed"


def test_a_setting_that_the_checkpoint_does_not_hold_had_its_default() -> None:
    """None is not stored, nor is a setting that did not exist yet; a parameter that is gone is nothing."""
    config = make(partition={"name": "dirichlet", "alpha": 0.7}, strategy={"name": "fedprox", "mu": 0.1})
    stored: dict[str, Any] = {**config.to_dict(), "weighting": "uniform", "gone": 1}
    del stored["partition"]["alpha"], stored["strategy"]["mu"], stored["server"]
    stored["strategy"]["gone"] = 3
    was, now = settings_then(stored, config), settings_now(config)
    changed = {key: (was[key], now[key]) for key in now if was[key] != now[key]}
    assert changed == {
        "partition.alpha": (0.5, 0.7),
        "strategy.mu": (0.01, 0.1),
        "weighting": ("uniform", None),
    }
    del stored["partition"]["seed"], stored["partition"]["held_out"]
    other = make(partition={"name": "dirichlet", "seed": 4, "held_out": 0.5, "alpha": 0.5}, strategy="fedprox")
    was_then = settings_then(stored, other)
    assert [was_then[f"partition.{key}"] for key in ("seed", "held_out", "unseen_held_out")] == [0, 0.0, None]
    assert was.keys() == now.keys() and was["server.lr"] == 1.0 and was["partition.name"] == "dirichlet"


@dataclass
class Optional(Strategy):
    """Its object has numbers that a config names, one of them None."""

    clip: float | None = None


def test_a_number_of_an_object_that_the_checkpoint_does_not_hold_had_its_default() -> None:
    """None is not stored, so that ``clip`` of the first run is its class's default, not the fork's own."""
    stored, config = make(strategy=Optional()).to_dict(), make(strategy=Optional(clip=3.0))
    assert "clip" not in stored["strategy"]
    assert (settings_then(stored, config)["strategy.clip"], settings_now(config)["strategy.clip"]) == (None, 3.0)


def test_what_stays_with_clients_is_not_taken_from_a_model_that_none_of_them_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fork = .* weight stays with its client, .* the network's own and not"):
        fork(trained(tmp_path, rounds=1), 1, tmp_path, rounds=2, strategy="local-only")
    whole = trained(tmp_path, rounds=2, strategy="local-only")
    found = []
    for outcome in (whole, fork(whole, 1, tmp_path, rounds=2, strategy="local-only")):
        kept, _ = checkpoint.latest(Path(outcome.summary["run_dir"]))
        assert kept is not None
        found.append({c: float(state["home::weight"]) for c, state in kept.states.items()})
    assert found[0] == found[1] and len(set(found[0].values())) == 4


def test_clients_that_trained_before_a_fork_and_never_train_in_it_are_told_of(tmp_path: Path) -> None:
    whole = trained(tmp_path, rounds=1)
    cases: list[tuple[dict[str, Any], bool]] = [({}, False), ({"holdout_clients": 1}, True)]
    for more, told in cases:
        summary = fork(whole, 1, tmp_path, rounds=2, **more).summary
        events = load(summary["run_dir"]).events
        assert events["event"].eq("unseen_trained").any() == told
    was = {"holdout_clients": 1, "validation_clients": 1, "partition.seed": 0}
    assert trained_before(was, was, []) == trained_before(was, {**was, "validation_clients": 0}, []) == ""
    assert "of these 3 clients 2 never" in trained_before(was, {**was, "validation_clients": 2}, ["validation_clients"])
    assert "partition.seed was 0" in trained_before(was, {**was, "partition.seed": 1}, ["partition.seed"])
