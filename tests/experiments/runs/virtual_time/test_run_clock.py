"""Runs in virtual time: what devices change, what they do not, and what is refused before the run."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from experiments import replay
from experiments.run import Outcome, main, run
from fl_sim.errors import ConfigError
from strategies.fedavg import FedAvg
from strategies.hierarchical import Hierarchical
from tests.experiments.runs.test_stop import lines, trained

WORLD: dict[str, Any] = {"task": "tests.experiments.config.tiny_world:tiny", "model": "lr", "partition": "iid"}
WORLD |= {"clients": 8, "cohort": 3, "rounds": 3, "local.batch_size": 2, "engine": "loop", "quiet": True}


def rows(out: Path, **settings: Any) -> list[dict[str, Any]]:
    """The lines of a run of the tiny world."""
    return lines(trained(out, **{**WORLD, "partition.held_out": 0.0, **settings}))


def test_devices_change_when_and_not_what(tmp_path: Path) -> None:
    """Four samples in batches of 2 are 2 steps, each of a virtual second: rounds end at 2, 4, 6."""
    same = rows(tmp_path)
    slow = rows(tmp_path, **{"profile": "lognormal", "profile.up": 1000.0})
    assert [line["virtual_time"] for line in same] == [0.0, 2.0, 4.0, 6.0]
    assert [line["digest"] for line in same] == [line["digest"] for line in slow]
    assert [line["virtual_time"] for line in slow] != [line["virtual_time"] for line in same]
    assert [sum(line["counted_by_speed"]) for line in slow[1:]] == [3, 3, 3]


@pytest.mark.parametrize("strategy", ["fedavg", "flwr.serverapp.strategy:FedAvg"])
def test_a_round_asks_more_clients_and_is_closed_by_a_cohort(strategy: str, tmp_path: Path) -> None:
    last = rows(tmp_path, strategy=strategy, profile="halfnormal", **{"system.over_select": 1.6})[-1]
    assert (last["clients"], last["completed"], last["dropped"]) == (5, 3, 2)
    assert last["wasted_examples"] > 0 and last["bytes_down"] > last["bytes_up"]


def test_a_strategy_that_keeps_partial_work_gets_the_steps_that_fit(tmp_path: Path) -> None:
    """One of two steps fits into 1.5 s: FedProx counts 3 steps, FedAvg would have nobody."""
    last = rows(tmp_path, strategy="fedprox", **{"strategy.mu": 0.1, "system.deadline": 1.5})[-1]
    assert (last["steps"], last["completed"], last["virtual_time"]) == (3, 3, 4.5)


def test_a_run_that_goes_on_keeps_its_virtual_time(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"profile": "halfnormal", "profile.per": "launch", "system.deadline": 4.0}
    settings["checkpoint_keep"] = 0
    folder = trained(tmp_path, **{**WORLD, "partition.held_out": 0.0, **settings})
    whole = lines(folder)
    cut = trained(tmp_path, **{**WORLD, "partition.held_out": 0.0, **settings, "rounds": 2})
    assert main(["--resume", str(cut), "--rounds", "3", "--quiet"]) == 0
    assert lines(cut) == whole
    forked = run(**{**WORLD, **settings, "fork": f"{cut}@1", "out": tmp_path})
    assert isinstance(forked, Outcome)
    again = [line["virtual_time"] for line in lines(Path(str(forked.summary["run_dir"])))]
    assert again == pytest.approx([line["virtual_time"] - whole[1]["virtual_time"] for line in whole[1:]], abs=1e-9)


class Counting(FedAvg):
    """FedAvg that notes how many clients there are, and how many it could ask."""

    seen: list[tuple[int, int]]

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        sent = super().configure_train(server_round, arrays, config, grid)
        seen.append((self.population, len(list(grid.get_node_ids()))))
        return sent


seen: list[tuple[int, int]] = []


def test_who_is_away_is_not_asked_and_counts_among_the_clients(tmp_path: Path) -> None:
    seen.clear()
    last = rows(tmp_path, strategy=Counting, **{"profile.on": 3.0, "profile.off": 3.0})[-1]
    assert {population for population, _ in seen} == {8} and all(3 <= there < 8 for _, there in seen)
    assert last["completed"] == 3


@pytest.mark.parametrize("attack", ["sign-flip", "ipm"])
def test_of_those_whose_work_is_used_the_share_is_malicious(attack: str, tmp_path: Path) -> None:
    """Three of five that are asked are counted, and a third of them is one."""
    settings = {"profile": "halfnormal", "system.over_select": 1.6, "attack": attack, "attack.share": 0.34}
    folder = trained(tmp_path, **{**WORLD, "partition.held_out": 0.0, **settings})
    clients = [json.loads(line) for line in (folder / "clients.jsonl").read_text().splitlines()]
    for number in (1, 2, 3):
        counted = [row for row in clients if row["round"] == number and row["status"] == "completed"]
        assert len(counted) == 3 and sum(bool(row.get("attacked")) for row in counted) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "fedprox", "strategy.mu": 0.1, "profile": "halfnormal", "system.deadline": 1.0},
        {"profile": "halfnormal", "profile.on": 3.0, "profile.off": 3.0, "attack": "sign-flip", "attack.share": 0.34},
    ],
)
def test_what_a_client_did_in_virtual_time_is_replayed(settings: dict[str, Any], tmp_path: Path) -> None:
    """With the steps that it did until the deadline, among the clients that were there, and as an honest one or not."""
    folder = trained(tmp_path, **{**WORLD, "partition.held_out": 0.0, **settings})
    clients = [json.loads(line) for line in (folder / "clients.jsonl").read_text().splitlines()]
    used = [row for row in clients if row["round"] == 3 and row["status"] == "completed"]
    for row in used:
        again = replay.replay(folder, 3, row["client"])
        assert again.numbers["steps"] == row["steps"]
        assert again.numbers["update_norm"] == pytest.approx(row["update_norm"], rel=1e-5)
    for row in (row for row in clients if row["round"] == 3 and row["status"] == "dropped"):
        with pytest.raises(ValueError, match=r"left out by virtual time \(late"):
            replay.replay(folder, 3, row["client"])


@pytest.mark.parametrize(
    "settings, samples",
    [
        ({"local.batch_size": 3, "local.epochs": 2}, 8),  # four samples: batches of 3 and 1, twice
        ({"local.batch_size": 3, "local.epochs": 2, "local.last_batch": "drop"}, 6),
        ({"local.batch_size": 0, "local.steps": 5}, 20),
        ({"strategy": "maml", "strategy.inner_steps": 3}, 8),  # three batches of 2 of support, and 2 of query
    ],
)
def test_a_second_a_sample_counts_the_samples_of_batches(
    settings: dict[str, Any], samples: int, tmp_path: Path
) -> None:
    seconds = {"profile.step": 0.0, "profile.sample": 1.0, "rounds": 1}
    refused = ("local.batch_size",) if settings.get("strategy") == "maml" else ()
    given = {k: v for k, v in {**WORLD, **settings, **seconds, "partition.held_out": 0.0}.items() if k not in refused}
    found = run(**given, out=tmp_path)
    assert isinstance(found, Outcome) and found.summary["virtual_time"] == samples


class Edges(Hierarchical):
    """Hierarchical FedAvg that notes the edge of each client that was asked."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
        sent = super().configure_train(server_round, arrays, config, grid)
        for node, edge in self.edge_of.items():
            of_node.setdefault(node, set()).add(edge)
        return sent


of_node: dict[int, set[int]] = {}


def test_a_client_keeps_its_edge_whoever_else_is_away(tmp_path: Path) -> None:
    of_node.clear()
    rows(tmp_path, strategy=Edges, rounds=8, **{"profile.on": 3.0, "profile.off": 3.0})
    assert len(of_node) == 8 and all(len(edges) == 1 for edges in of_node.values())


def test_a_run_ends_after_its_virtual_time(tmp_path: Path) -> None:
    assert [line["round"] for line in rows(tmp_path, **{"stop.virtual_time": 3.0})] == [0, 1, 2]


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"system.over_select": 3.0}, "system.over_select = 3: of a cohort of 3 it makes 9 clients, and 8 train"),
        ({"profile.on": 3.0}, "profile.on = 3, profile.off = 0: "),
        ({"system.deadline": 1.5}, "system.deadline = 1.5: no device meets it; the fastest of 8 takes 2 virtual"),
        ({"system.deadline": 1e-10}, "system.deadline = 1e-10: virtual time is counted in nanoseconds"),
        ({"profile": "tiers", "profile.seconds": "1,2"}, "profile.seconds = '1,2': must be 3 numbers"),
        ({"profile.seed": 3}, "profile.seed = 3: does nothing here"),
        ({"profile": "zipff"}, "profile.name = 'zipff': unknown .did you mean 'zipf'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ValueError), match=says):
        run(**WORLD, **settings, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
