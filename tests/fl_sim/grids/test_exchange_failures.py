"""A fault is the failure of its client: named with its round, never pooled; the run fails, or tolerates a share."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from safetensors import safe_open

from fl_sim import RoundFailed, RoundLog, SimulationGrid, load, run_rounds
from fl_sim.grids.exchange import Failures
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg

START = ArrayRecord({"w": Array(np.zeros(3, np.float32)), "n": Array(np.zeros(2, np.int64))})
CULPRIT = 2

# An ordinary ClientApp --------------------------------------------------------------------------------------------


def changed(**leaves: np.ndarray | None) -> Callable[[dict[str, np.ndarray], dict[str, Any]], None]:
    """A fault that replaces leaves of the reply; None takes one away."""

    def fault(arrays: dict[str, np.ndarray], metrics: dict[str, Any]) -> None:
        arrays.update({k: v for k, v in leaves.items() if v is not None})
        for k in [k for k, v in leaves.items() if v is None]:
            del arrays[k]

    return fault


def reporting(**numbers: Any) -> Callable[[dict[str, np.ndarray], dict[str, Any]], None]:
    return lambda arrays, metrics: metrics.update(numbers)


def raising(error: BaseException) -> Callable[[dict[str, np.ndarray], dict[str, Any]], None]:
    def fault(arrays: dict[str, np.ndarray], metrics: dict[str, Any]) -> None:
        raise error

    return fault


F32 = np.float32
FAULTS: dict[str, tuple[Any, str]] = {
    "raise": (raising(RuntimeError("disk full")), r"Traceback.*test_exchange_failures.*disk full"),
    "exit": (raising(SystemExit(0)), "SystemExit"),
    "nan": (changed(w=np.array([1, np.nan, 1], F32)), "NaN or infinity in w"),
    "inf": (changed(w=np.array([1, 1, -np.inf], F32)), "NaN or infinity in w"),
    "shape": (changed(w=np.ones(4, F32)), r"wrong shape: w is \(4,\), must be \(3,\)"),
    "broadcast": (changed(w=np.ones((1, 3), F32)), r"wrong shape: w is \(1, 3\), must be \(3,\)"),
    "dtype": (changed(w=np.ones(3, np.float64)), "wrong dtype: w is float64, must be float32"),
    "int": (changed(w=np.ones(3, np.int64)), "wrong dtype: w is int64, must be float32"),
    "missing": (changed(n=None), r"wrong keys: missing \['n'\]"),
    "unknown": (changed(extra=np.ones(1, F32)), r"unknown \['extra'\]"),
    "negative": (reporting(**{"num-examples": -5}), "num-examples = -5"),
    "nan weight": (reporting(**{"num-examples": float("nan")}), "num-examples is nan"),
    "huge weight": (reporting(**{"num-examples": 1e18}), r"num-examples = 1e\+18: a weight must be at most 1e\+09"),
    "list weight": (reporting(**{"num-examples": [1, 2]}), r"num-examples = \[1, 2\]"),
}
OTHERS = {
    "none": "returned NoneType, not a Message",
    "new": "is no reply to the one that it got",
    "error": "battery empty",
}


def app(fault: Any, culprits: Iterable[int] = (CULPRIT,), other: str = "") -> ClientApp:
    """Clients whose replies are all ones, with 10 examples; in round 2 the culprits' replies have the fault."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message | None:
        arrays: dict[str, np.ndarray] = {"w": np.ones(3, F32), "n": np.ones(2, np.int64)}
        metrics: dict[str, Any] = {"num-examples": 10, "loss": 0.5}
        if context.node_config["partition-id"] in culprits and message.content["config"]["server-round"] == 2:
            if other == "none":
                return None
            if other == "new":
                return Message(RecordDict(), 1, "train")
            if other == "error":
                return Message(Error(7, "battery empty"), reply_to=message)
            fault(arrays, metrics)
        record = ArrayRecord({k: Array(v) for k, v in arrays.items()})
        return Message(RecordDict({"arrays": record, "metrics": MetricRecord(metrics)}), reply_to=message)

    return client_app


def flower() -> FlowerFedAvg:
    return FlowerFedAvg(fraction_evaluate=0.0)


def rounds(
    client_app: ClientApp, log: RoundLog | None = None, failures: str = "raise", strategy: Any = None, clients: int = 5
) -> Any:
    return run_rounds(strategy or flower(), SimulationGrid(client_app, clients), START, 3, log=log, failures=failures)


@pytest.mark.parametrize("ours", [False, True], ids=["flower", "ours"])
@pytest.mark.parametrize("fault", [*FAULTS, *OTHERS])
def test_a_bad_reply_of_an_ordinary_app_is_its_clients_failure(fault: str, ours: bool, tmp_path: Path) -> None:
    reason = FAULTS[fault][1] if fault in FAULTS else OTHERS[fault]
    client_app = app(FAULTS[fault][0]) if fault in FAULTS else app(None, other=fault)
    strategy = FedAvg() if ours else None
    with (
        RoundLog.create(tmp_path, "raise", "") as log,
        pytest.raises(RoundFailed, match=f"(?s)round 2, client {CULPRIT}, train: .*{reason}"),
    ):
        rounds(client_app, log, strategy=strategy)
    read = load(log.path)
    assert read.rounds["round"].tolist() == [0, 1] and read.model()["w"].tolist() == [1, 1, 1]
    failed = read.clients[read.clients["status"] == "failed"]
    assert failed[["round", "client"]].to_numpy().tolist() == [[2, CULPRIT]]
    assert read.events["event"].tolist() == ["client_failed", "run_failed"]
    with RoundLog.create(tmp_path, "tolerate", "") as log:
        result = rounds(client_app, log, "tolerate:0.2", strategy=FedAvg() if ours else None)
    assert [(row["completed"], row["failed"]) for row in result.rows[1:]] == [(5, 0), (4, 1), (5, 0)]
    assert result.arrays["w"].numpy().tolist() == [1, 1, 1]  # the culprit contributed nothing
    assert load(log.path).events[["round", "client"]].to_numpy().tolist() == [[2, CULPRIT]]


def test_a_client_that_fails_keeps_the_state_it_had_and_cannot_change_what_others_get() -> None:
    seen: list[tuple[int, int, float]] = []
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        client, config = int(context.node_config["partition-id"]), message.content["config"]
        counted = context.state.setdefault("count", MetricRecord({"n": 0}))
        counted["n"] += 1
        seen.append((client, counted["n"], config.get("lr", 1.0)))
        config["lr"] = 99.0
        context.run_config["spoilt"] = True
        if client == 0 and config["server-round"] == 1:
            raise RuntimeError
        assert "spoilt" not in context.node_config
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    rounds(client_app, failures="tolerate:0.5", clients=2)
    assert sorted(seen) == [(0, 1, 1.0), (0, 1, 1.0), (0, 2, 1.0), (1, 1, 1.0), (1, 2, 1.0), (1, 3, 1.0)]


def test_after_one_failure_too_many_no_other_client_is_called() -> None:
    called: list[int] = []

    def make(client: int) -> Mapping[str, np.ndarray]:
        called.append(client)
        raise RuntimeError

    for policy, calls in (("raise", 1), ("tolerate:0.4", 3)):
        with pytest.raises(RoundFailed):
            rounds(replying(make), failures=policy)
        assert len(called) == calls
        called.clear()


@pytest.mark.parametrize(
    ("policy", "clients", "failing", "problem"),
    [
        ("tolerate:0.2", 5, 1, ""),
        ("tolerate:0.2", 5, 2, r"client 1, train \(2 of 5 failed, 1 allowed\)"),
        ("tolerate:0.19", 5, 1, "client 0, train: "),
        ("tolerate:0.3", 10, 3, ""),  # 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996: three either way
        ("tolerate:0.29", 10, 3, r"3 of 10 failed, 2 allowed"),
        ("tolerate:0", 5, 1, "client 0, train: "),
        ("tolerate:1", 4, 3, ""),
        ("tolerate:1.0", 4, 4, "all 4 clients failed"),
    ],
)
def test_a_share_is_tolerated_and_no_client_more(policy: str, clients: int, failing: int, problem: str) -> None:
    client_app = app(raising(RuntimeError("x")), culprits=range(failing))
    if not problem:
        assert rounds(client_app, failures=policy, clients=clients).rows[2]["failed"] == failing
        return
    with pytest.raises(RoundFailed, match=problem):
        rounds(client_app, failures=policy, clients=clients, strategy=FedAvg())


def test_the_tolerated_share_is_rounded_to_whole_clients() -> None:
    """0.29 * 100 is 28.999999999999996."""
    assert [Failures.parse(f"tolerate:{share}").allowed(n) for share, n in ((0.29, 100), (0.1, 9), (0.7, 10))] == [
        29,
        0,
        7,
    ]


@pytest.mark.parametrize("text", ["tolerate", "tolerate:", "tolerate:2", "tolerate:-0.1", "tolerate:nan", "ignore", ""])
def test_an_unknown_policy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="failures = .*must be raise, or tolerate:SHARE"):
        Failures.parse(text)


def test_all_clients_failed_and_the_last_good_model_is_kept(tmp_path: Path) -> None:
    with (
        RoundLog.create(tmp_path, "run", "") as log,
        pytest.raises(RoundFailed, match="(?s)all 5 clients failed.*broken"),
    ):
        rounds(app(raising(RuntimeError("broken")), culprits=range(5)), log, "tolerate:1")
    assert load(log.path).model()["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_the_kept_model_names_its_round(phase: str, tmp_path: Path) -> None:
    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"loss": 1.0 / (2 - server_round)})

    client_app = app(raising(RuntimeError()), culprits=[0] if phase == "train" else [])
    with RoundLog.create(tmp_path, "run", "") as log, pytest.raises((RoundFailed, ZeroDivisionError)):
        run_rounds(flower(), SimulationGrid(client_app, 3), START, 3, log=log, evaluate_fn=evaluate)
    with safe_open(log.path / "model.safetensors", "pt") as kept:
        assert kept.metadata()["round"] == ("1" if phase == "train" else "2")


class Poisonous(FedAvg):
    """A strategy whose server step breaks the model."""

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        if server_round < 2:
            return pooled
        return {k: v * float("nan") if v.is_floating_point() else v for k, v in pooled.items()}


class Shapeless(FedAvg):
    """A strategy whose server step loses a leaf."""

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return {"w": pooled["w"]}


@pytest.mark.parametrize(("strategy", "why"), [(Poisonous(), "NaN or infinity in w"), (Shapeless(), "wrong keys")])
def test_a_strategy_that_breaks_the_model_fails_the_run(strategy: FedAvg, why: str, tmp_path: Path) -> None:
    with (
        RoundLog.create(tmp_path, "run", "") as log,
        pytest.raises(RoundFailed, match=f"the strategy's new model has {why}"),
    ):
        rounds(app(None, culprits=()), log, strategy=strategy)
    assert bool(torch.isfinite(load(log.path).model()["w"]).all())


# Forms of foreign replies ------------------------------------------------------------------------------------------


class Own(FlowerFedAvg):
    """A strategy with a protocol of its own: clients send a part of the model, in half precision."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        values = [reply.content["arrays"]["half"].numpy() for reply in replies]
        mean = np.mean(values, axis=0).astype(F32)
        return ArrayRecord({"w": Array(np.append(mean, F32(0))), "n": Array(np.zeros(2, np.int64))}), None


def replying(make: Callable[[int], Mapping[str, np.ndarray]]) -> ClientApp:
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        record = ArrayRecord({k: Array(v) for k, v in make(int(context.node_config["partition-id"])).items()})
        return Message(RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return client_app


def test_a_protocol_of_the_apps_own_is_no_failure() -> None:
    half = replying(lambda client: {"half": np.full(2, client, np.float16)})
    assert rounds(half, strategy=Own(fraction_evaluate=0.0)).arrays["w"].numpy().tolist() == [2, 2, 0]
    with pytest.raises(RoundFailed, match="wrong keys"):
        rounds(half)  # Flower's own strategy would average any reply


def test_clients_that_compute_in_another_type_than_the_server_are_no_failure() -> None:
    """A server that computes in float64 with clients of PyTorch, or counters that Flower averaged into float64."""

    def wide(client: int) -> dict[str, np.ndarray]:
        return {"w": np.full(3, client, np.float64), "n": np.zeros(2, np.int32)}

    assert rounds(replying(wide)).arrays["w"].numpy().tolist() == [2, 2, 2]
    with pytest.raises(RoundFailed, match="client 3, train: wrong dtype: n is uint16, must be int64"):
        rounds(replying(lambda client: {**wide(client), **({"n": np.zeros(2, np.uint16)} if client == 3 else {})}))
    with pytest.raises(RoundFailed, match="wrong shape: w"):
        rounds(replying(lambda client: {"w": np.zeros(4, F32), "n": np.zeros(2, np.int64)}))
