"""Replies of ordinary apps: weights of 0, numbers that are not finite, and what Flower's averages need in common."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import DifferentialPrivacyClientSideAdaptiveClipping, QFedAvg
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from fl_sim import RoundFailed, RoundLog, SimulationGrid, load, run_rounds
from fl_sim.grids.exchange import Exchange, Failures
from fl_sim.grids.no_answer import LATE, NO_FUNCTION, NO_NODE
from fl_sim.grids.untrusted_replies.claims import finite, shortened, whole
from fl_sim.grids.untrusted_replies.exchange_replies import Expected, error_text
from fl_sim.wire import flower, reply_form
from strategies.base.personal import summarise
from strategies.fedavg import FedAvg

START = ArrayRecord({"a": Array(np.zeros(2, np.float32)), "b": Array(np.zeros(2, np.float32))})
CULPRIT = 1
Numbers = dict[str, Any]


def app(tamper: Callable[[dict[str, np.ndarray], Numbers], object], name: str = "metrics") -> ClientApp:
    """Clients with ten examples whose model is a = 1, b = 2; ``tamper`` changes that of one of them, ``name`` too."""
    client_app = ClientApp()

    def reply(message: Message, context: Context) -> Message:
        arrays = {"a": np.ones(2, np.float32), "b": np.full(2, 2, np.float32)}
        numbers: Numbers = {"num-examples": 10, "loss": 0.5}
        culprit = context.node_config["partition-id"] == CULPRIT
        if culprit:
            tamper(arrays, numbers)
        trains = message.metadata.message_type == "train"
        content: dict[str, Any] = {name if culprit else "metrics": MetricRecord(numbers)}
        content |= {"arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()})} if trains else {}
        return Message(RecordDict(content), reply_to=message)

    client_app.train()(reply)
    client_app.evaluate()(reply)
    return client_app


def changed(**numbers: Any) -> Callable[[dict[str, np.ndarray], Numbers], object]:
    named = {k.replace("_", "-"): v for k, v in numbers.items()}
    return lambda arrays, own: own.update(named)


def rounds(client_app: ClientApp, strategy: Any, failures: str = "raise", log: RoundLog | None = None) -> Any:
    return run_rounds(strategy, SimulationGrid(client_app, 3), START, 1, log=log, failures=failures)


def flowers(**options: Any) -> FlowerFedAvg:
    return FlowerFedAvg(fraction_evaluate=options.pop("fraction_evaluate", 0.0), **options)


def values(result: Any) -> list[list[float]]:
    return [result.arrays[k].numpy().tolist() for k in ("a", "b")]


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "flower"])
def test_a_weight_of_0_counts_nothing_and_is_an_event(ours: bool, tmp_path: Path) -> None:
    def tamper(arrays: dict[str, np.ndarray], numbers: Numbers) -> None:
        arrays["a"][:], numbers["num-examples"] = 50, 0

    with RoundLog.create(tmp_path, "run", "") as log:
        result = rounds(app(tamper), FedAvg() if ours else flowers(), log=log)
    assert values(result) == [[1, 1], [2, 2]] and result.rows[1]["completed"] == 3
    events = load(log.path).events
    assert events[events["event"] == "zero_weight"]["clients"].tolist() == [[CULPRIT]]


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "flower"])
def test_a_loss_of_infinity_is_null_and_the_model_counts(ours: bool, tmp_path: Path) -> None:
    """The culprit's a is 4, so that the mean is 2; ours takes the mean loss of the others."""

    def tamper(arrays: dict[str, np.ndarray], numbers: Numbers) -> None:
        arrays["a"][:], numbers["loss"] = 4, float("inf")

    with RoundLog.create(tmp_path, "run", "") as log:
        result = rounds(app(tamper), FedAvg() if ours else flowers(), log=log)
    assert values(result) == [[2, 2], [2, 2]]
    assert result.rows[1]["train_loss"] == (0.5 if ours else float("inf"))
    read = load(log.path)
    assert read.clients.set_index("client")["loss"].isna().to_dict() == {0: False, CULPRIT: True, 2: False}
    assert "not_finite" in read.events["event"].tolist()


def test_a_loss_that_is_not_reported_is_no_loss_of_0() -> None:
    client_app = app(lambda arrays, numbers: numbers.pop("loss"))
    assert rounds(client_app, FedAvg()).rows[1]["train_loss"] == 0.5  # the mean of the two that report it


def test_an_evaluation_of_nan_is_left_out_of_the_mean(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", "") as log:
        result = rounds(app(changed(loss=float("nan"))), flowers(fraction_evaluate=1.0), log=log)
    assert result.rows[1]["evaluate_loss"] == 0.5 and values(result) == [[1, 1], [2, 2]]
    events = load(log.path).events
    [found] = events[(events["event"] == "not_finite") & events["clients"].notna()][-1:].to_dict("records")
    assert found["clients"] == [CULPRIT] and "evaluate" in found["reason"]


@pytest.mark.parametrize(
    ("tamper", "name", "reason"),
    [
        (changed(extra=1.0), "metrics", "other names of records or numbers than most replies"),
        (lambda arrays, numbers: numbers.pop("loss"), "metrics", "other names of records or numbers"),
        (changed(loss=[0.5]), "metrics", "other names of records or numbers"),
        (changed(), "numbers", "other names of records or numbers"),
        (lambda arrays, numbers: numbers.pop("num-examples"), "metrics", "num-examples = None: each reply must"),
        (changed(num_examples=[1, 2]), "metrics", r"num-examples = \[1, 2\]"),
        (lambda arrays, numbers: arrays.pop("b"), "metrics", "wrong keys"),
    ],
)
def test_what_flowers_average_would_raise_for_is_its_clients_failure(tamper: Any, name: str, reason: str) -> None:
    """Flower itself raises for unequal names, and the whole round is lost."""
    result = rounds(app(tamper, name), flowers(), "tolerate:0.4")
    assert result.rows[1]["failed"] == 1 and values(result) == [[1, 1], [2, 2]]
    with pytest.raises(RoundFailed, match=f"client {CULPRIT}, train: .*{reason}"):
        rounds(app(tamper, name), flowers())


def test_arrays_in_another_order_are_paired_by_name() -> None:
    """QFedAvg pairs arrays by their place; all clients send a = 1, b = 2, one of them b first."""

    def reverse(arrays: dict[str, np.ndarray], numbers: Numbers) -> None:
        arrays["a"] = arrays.pop("a")

    straight, turned = (rounds(app(tamper), fair()) for tamper in (changed(), reverse))
    assert values(turned) == values(straight)


def fair() -> QFedAvg:
    return QFedAvg(fraction_evaluate=0.0, train_loss_key="loss", client_learning_rate=1.0)


def test_a_loss_that_enters_the_model_must_be_finite() -> None:
    with pytest.raises(RoundFailed, match=f"client {CULPRIT}, train: loss is nan"):
        rounds(app(changed(loss=float("nan"))), fair())


def test_a_reply_to_no_message_is_noted_or_ends_a_run_without_tolerance() -> None:
    flower.identify()
    message = Message(RecordDict(), 2, "train")
    flower.set_message_id(message, "1")
    good = Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
    exchange = Exchange(1, "train", [message], {2: 0})
    passed = list(exchange.checked([good, good], reply_form.anything, Failures(1.0)))
    assert len(passed) == 1 and exchange.strays == ["a reply to no message of this round, from node 2"]
    with pytest.raises(RoundFailed, match="round 1: a reply to no message"):
        list(Exchange(1, "train", [message], {2: 0}).checked([good, good], reply_form.anything, Failures()))


def test_values_of_any_kind_become_text() -> None:
    huge = 10**5000
    assert not finite(huge) and not finite(float("nan")) and finite(2**1000)
    assert whole({"n": huge}, "n", 10.0) == "n = an integer of thousands of digits: must be a whole number in 0..10"
    assert whole({"n": True}, "n", 10.0) and not whole({"n": 3.0}, "n", 10.0) and len(shortened("x" * 999)) < 210
    empty = Message(RecordDict(), 2, "train")
    empty.__dict__["_content"] = None
    assert error_text(empty) == "a reply with neither content nor an error"
    assert Expected().max_examples == float("inf")


def test_an_accuracy_that_some_clients_lack_is_in_no_mean() -> None:
    full = {"held_out": 2, "loss_before": 1.0, "loss": 0.5, "accuracy_before": 0.25, "accuracy": 0.5}
    some = {k: v for k, v in full.items() if k != "accuracy"}
    assert summarise("personal", [full, full])["personal_accuracy"] == 0.5
    assert summarise("personal", [full, some]) == {
        "personal_clients": 2, "personal_share_worse": 0.0, "personal_loss_before": 1.0, "personal_loss": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("code", [LATE, NO_NODE, NO_FUNCTION])
def test_an_error_with_a_code_of_this_process_is_a_failure_on_any_flower_grid(code: int) -> None:
    """Flower's own grid behind ``run_rounds``: what a device writes into its error excuses nothing."""

    class Devices(SimulationGrid):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
            replies = list(super().send_and_receive(messages, timeout=timeout))
            told = Message(Error(code, "busy"), reply_to=list(messages)[CULPRIT])
            return [told if n == CULPRIT else reply for n, reply in enumerate(replies)]

    client_app = app(changed())
    with pytest.raises(RoundFailed, match="train: busy"):
        run_rounds(flowers(), Devices(client_app, 3), START, 1)


def test_without_the_norm_bit_adaptive_clipping_is_a_failure_of_each_client() -> None:
    wrapper = DifferentialPrivacyClientSideAdaptiveClipping(flowers(), 0.0, 3, clipped_count_stddev=1.0)
    with pytest.raises(RoundFailed, match="norm_bit = None: each reply must report this number"):
        rounds(app(changed()), wrapper)
