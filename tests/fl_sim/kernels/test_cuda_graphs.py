"""CUDA graphs, with a stand-in that runs the recorded function again: an incomplete key would change a number."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.check.world import world
from experiments.run import main, run
from fl_sim import registry, tree
from fl_sim.engines.evaluate import evaluate
from fl_sim.kernels import cuda_graphs
from fl_sim.kernels.cuda_graphs import GraphRecorder
from strategies.fedavg import FedAvg


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of replays of each recording."""
    replays: list[int] = []

    def record(function: Any, inputs: Any, notes: list[Any]) -> Any:
        own = [x.clone() for x in inputs]
        outputs = tuple(x.clone() for x in function(*own))
        number = len(replays)
        replays.append(0)

        class Graph:
            def replay(self) -> None:
                replays[number] += 1
                for old, new in zip(outputs, function(*own), strict=True):
                    old.copy_(new)

        return cuda_graphs._Recording(Graph(), function, own, outputs, list(notes))

    monkeypatch.setattr(cuda_graphs, "_record", record)
    monkeypatch.setattr(GraphRecorder, "supports", staticmethod(lambda device: True))
    return replays


def test_a_second_call_is_recorded_and_replayed(recorded: list[int]) -> None:
    recorder = GraphRecorder()
    for round_ in range(4):
        notes: list[str] = []

        def twice(x: Tensor, notes: list[str] = notes) -> tuple[Tensor]:
            notes[:] = ["twice"]
            return (2 * x,)

        [result] = recorder("key", twice, [torch.tensor(float(round_))], notes)
        assert result.item() == 2 * round_ and notes == ["twice"]
    assert recorded == [3]  # every call but the first; the call that records is replayed too
    [other] = recorder("other key", lambda x: (x + 1,), [torch.tensor(1.0)], [])
    assert other.item() == 2 and recorded == [3]


def test_the_number_of_graphs_is_limited_and_replays_do_not_overwrite_results(recorded: list[int]) -> None:
    recorder, results = GraphRecorder(), []
    for key in range(cuda_graphs.MAX_GRAPHS + 2):
        for value in (1.0, 2.0, 3.0):
            [result] = recorder(key, lambda x: (x * 1,), [torch.tensor(value)], [])
            results.append(result)
    assert [r.item() for r in results] == [1.0, 2.0, 3.0] * (cuda_graphs.MAX_GRAPHS + 2)
    assert sum(kept is not None for kept in recorder._recorded.values()) == cuda_graphs.MAX_GRAPHS


def test_a_function_that_cannot_be_recorded_runs_without_a_graph_and_the_reason_is_kept(
    recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "_record", refuse)
    recorder = GraphRecorder()
    assert [recorder("key", lambda x: (x + 1,), [torch.tensor(1.0)], [])[0].item() for _ in range(3)] == [2.0] * 3
    assert "capturing" in recorder.refused


def test_evaluation_is_the_same(recorded: list[int]) -> None:
    loss = world()[0]
    x, y = loss.task.train["x"], loss.task.train["y"]
    recorder, models = GraphRecorder(), [tree.scale(loss.initial(), factor) for factor in (1.0, 0.5, 2.0, -1.0)]
    for data in ({"x": x, "y": y}, {"x": x[:7].clone(), "y": y[:7].clone()}, {}):
        for model in models:
            assert evaluate(loss, model, data, recorder) == evaluate(loss, model, data)
    assert recorded == [3, 3]


OURS = registry.names("strategies", "strategy")
WORDS: dict[str, Any] = {
    "task": "digits",
    "model": "lr",
    "clients": 8,
    "cohort": 4,
    "rounds": 6,
    "dtype": "float64",
    "quiet": True,
}


@pytest.mark.parametrize("strategy", [name for name, cls in OURS.items() if getattr(cls, "asynchronous", False)])
def test_waves_of_asynchronous_strategies_have_the_bits_of_runs_without_graphs(
    strategy: str, recorded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {k: v for k, v in WORDS.items() if k != "cohort"} | {"clients": 4, "concurrency": 3, "rounds": 8}
    few |= {"profile": "halfnormal"} | ({"strategy.buffer": 2} if strategy == "fedbuff" else {})
    graphs = run(**few, strategy=strategy, engine="vmap", out=str(tmp_path / "graphs"))
    seen = list(recorded)
    monkeypatch.setattr(GraphRecorder, "supports", staticmethod(lambda device: False))
    plain = run(**few, strategy=strategy, engine="vmap", out=str(tmp_path / "plain"))
    assert graphs.summary["digest"] == plain.summary["digest"] and seen != []
    assert "fallback" not in set(graphs.log.events["event"])


@pytest.mark.parametrize("strategy", [name for name, cls in OURS.items() if not getattr(cls, "asynchronous", False)])
def test_every_strategy_trains_from_graphs(strategy: str, recorded: list[int], tmp_path: Path) -> None:
    few = {"rounds": 4, "evaluate_every": 4, "local": {"batch_size": 16}, "clients": 4, "cohort": 4}
    few |= {"model": "tests.fl_sim.small_federation:grouped"} if strategy in ("fedbn", "fedrep") else {}
    few = {k: v for k, v in few.items() if k != "local" or strategy not in ("r2d2", "metaoptnet")}  # no batch size
    few |= {"strategy.every": 1} if strategy == "hierarchical" else {}  # else rounds have blocks of several sizes
    few |= {"validation": 0.2} if strategy == "adaptive" else {}
    log = run(**{**WORDS, **few}, strategy=strategy, engine="vmap", out=str(tmp_path)).log
    late = ("moon", "ditto", "fedbn", "pfedme")  # their clients have a state, or more of it, from round 2 on
    trained = 2 if strategy in late else 3  # rounds 2 to 4
    judged = [13] if strategy == "adaptive" else []  # 3 models a round and 2 of the log, of which the first is not
    assert "fallback" not in set(log.events["event"]) and sorted(recorded) == [1, trained, *judged]  # 1 evaluation


def test_a_strategy_with_state_in_attributes_trains_without_graphs_and_the_log_says_so_once(
    recorded: list[int], tmp_path: Path
) -> None:
    @dataclass
    class Stateful(FedAvg):
        def __post_init__(self) -> None:
            self.velocity: dict[str, Tensor] = {}

    log = run(**{**WORDS, "rounds": 3, "evaluate_every": 9}, strategy=Stateful(), engine="vmap", out=str(tmp_path)).log
    notes = log.events[log.events["event"] == "fallback"]["note"].tolist()
    assert (
        len(notes) == 1 and "without CUDA graphs: Stateful holds velocity" in notes[0] and recorded == [1]
    )  # evaluation


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"strategy": "fedprox", "strategy.mu": 0.5},
        {"local": {"lr_schedule": "cosine", "batch_size": 16}},
        {"strategy": "maml"},
        {"partition": "dirichlet", "evaluate_every": 2},
    ],
    ids=["fedavg", "fedprox", "a rate for each round", "maml", "clients of unequal size"],
)
def test_a_run_is_the_same(
    more: dict[str, Any], recorded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = {**{k: v for k, v in WORDS.items() if k != "quiet"}, **more, "engine": "vmap", "out": str(tmp_path)}
    with_graphs = run(**flat, quiet=True).summary
    replays = sum(recorded)
    monkeypatch.setattr(cuda_graphs, "MAX_KEYS", 0)
    assert run(**flat, quiet=True).summary["digest"] == with_graphs["digest"]
    assert replays > 0 and sum(recorded) == replays


@pytest.mark.parametrize("axis", ["local.lr=.01,.1 --local.lr_schedule cosine", "strategy.mu=0,1 --strategy fedprox"])
def test_a_batch_of_runs_is_the_same(
    axis: str, recorded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def digests() -> list[str]:
        words = "--task digits --model lr --clients 8 --cohort 4 --rounds 5 --dtype float64 --seed 0,1 --quiet --json"
        assert main([*words.split(), "--out", str(tmp_path), "--vmap_over", *axis.split()]) == 0
        return [summary["digest"] for summary in json.loads(capsys.readouterr().out)["runs"]]

    with_graphs, replays = digests(), sum(recorded)
    monkeypatch.setattr(cuda_graphs, "MAX_KEYS", 0)
    assert digests() == with_graphs and len(set(with_graphs)) == 4
    assert sum(recorded) == replays and (
        replays > 0 or "cosine" in axis
    )  # each round has a rate, and so kernels, of its own
