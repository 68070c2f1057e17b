"""A device builds its samples and its model, answers every message, stores its state, and imports few libraries."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from PIL import Image

from clients.app import app
from clients.device import samples as device_data
from clients.device.answer import always_answers
from clients.device.state import KEPT, States
from experiments.deploy.server_app import device_settings, parse_configs
from experiments.runs.setup import build
from fl_sim.grids.nodes import EXPERIMENT
from fl_sim.wire import flower, records
from strategies.base.strategy import Strategy

WORDS = ["digits-deploy", "--partition.held_out", "0.2"]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_SIM_STATE", str(tmp_path / "state"))


def experiment_spec(*more: str) -> dict[str, Any]:
    [config] = parse_configs([*WORDS, *more])
    return device_settings(build(config))


def ask(
    kind: str = "train",
    spec: dict[str, Any] | None = None,
    words: tuple[str, ...] = (),
    node: dict[str, Any] | None = None,
    **settings: Any,
) -> Message:
    """The answer of the device of client 1, or of the given node config, to a message."""
    [config] = parse_configs([*WORDS, *words])
    setup = build(config)
    strategy = setup.strategy
    assert isinstance(strategy, Strategy)
    flower.identify()
    settings = {**strategy.round_settings(settings.pop("server_round", 1), setup.train_config), **settings}
    content = {
        "arrays": setup.initial,
        "config": records.config(settings),
        EXPERIMENT: records.config(spec or device_settings(setup)),
    }
    message = Message(RecordDict(content), 5, kind)
    flower.set_message_id(message, "m1")
    return app(message, flower.context(5, {"partition-id": 1} if node is None else node, RecordDict(), {}))


def digest(reply: Message) -> str:
    assert reply.has_content(), reply.error.reason
    return str(
        sum(float(x.double().abs().sum()) for x in records.decode(reply.content.array_records["arrays"]).values())
    )


# The samples of a device ----------------------------------------------------------------------------------------------


def test_its_samples_are_those_of_the_simulations_client_and_nobody_elses() -> None:
    [config] = parse_configs(WORDS)
    setup = build(config)
    task, own = device_data.own_samples(device_settings(setup), 1, "")
    rows = torch.from_numpy(setup.partition.client(1))
    assert own.sizes(1) == setup.partition.sizes(1) and len(own) == len(setup.partition)
    whole = build(config).task.train["x"][rows]
    torch.testing.assert_close(task.transform({"x": task.train["x"].float()}, None)["x"], whole, rtol=0, atol=0)
    assert task.test == {} and task.labels is None
    with pytest.raises(ValueError, match="this device is client 1"):
        own.client(0)


def test_samples_are_computed_once_and_again_when_a_setting_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    divided = device_data.divided
    monkeypatch.setattr(device_data, "divided", lambda *args, **kw: computed.append(args) or divided(*args, **kw))
    for _ in range(2):
        device_data.own_samples(experiment_spec("--partition.seed", "77"), 1, "")
    assert len(computed) == 1
    device_data.own_samples(experiment_spec("--partition.seed", "77"), 2, "")
    device_data.own_samples(experiment_spec("--partition.seed", "78"), 1, "")
    assert len(computed) == 3


def pictures(folder: Path, classes: int, per_class: int = 6, only: int | None = None) -> Path:
    for n in range(classes):
        (folder / f"class-{n}").mkdir(parents=True)
        for i in range(per_class if only in (None, n) else 0):
            pixels = np.full((8, 8), (n * 40 + i) % 256, np.uint8)
            Image.fromarray(pixels).save(folder / f"class-{n}" / f"{i}.png")
    return folder


def test_a_folder_of_its_own_counts_classes_by_all_folders(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "own", 10, only=7)
    task, own = device_data.own_samples(experiment_spec(), 1, str(folder))
    assert set(task.train["y"].tolist()) == {7} and own.sizes(1) == (5, 1) and task.train["x"].shape == (6, 1, 8, 8)
    reply = ask(node={"partition-id": 1, "data-dir": str(folder)})
    assert reply.has_content() and reply.content.metric_records["metrics"]["num-examples"] == 5


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: folder, "no such folder"),
        (lambda folder: pictures(folder, 3), "3 class folders; it must hold one folder for each of the model's 10"),
        (lambda folder: pictures(folder, 10, 0), "0 pictures"),
    ],
)
def test_a_folder_that_will_not_do_is_an_error_reply(make: Callable[[Path], Path], why: str, tmp_path: Path) -> None:
    reply = ask(node={"partition-id": 1, "data-dir": str(make(tmp_path / "own"))})
    assert reply.has_error() and why in reply.error.reason


# Every message is answered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ({}, "partition-id = None"),
        ({"partition-id": 9}, "this experiment has 3 clients"),
        ({"partition-id": "x"}, "'x'"),
    ],
)
def test_a_node_config_that_will_not_do_is_an_error_reply(node: dict[str, Any], why: str) -> None:
    for kind in ("train", "query"):
        reply = ask(kind, node=node)
        assert reply.has_error() and why in reply.error.reason and reply.metadata.reply_to_message_id == "m1"


def test_unknown_names_and_a_message_of_someone_else_are_error_replies() -> None:
    assert "strategy.name = 'nosuch'" in ask(strategy="nosuch").error.reason
    assert "model.name = 'nosuch'" in ask(spec={**experiment_spec(), "model": "nosuch"}).error.reason
    flower.identify()
    message = Message(RecordDict({"arrays": ArrayRecord(), "config": ConfigRecord()}), 5, "train")
    reply = app(message, flower.context(5, {"partition-id": 1}, RecordDict(), {}))
    assert "no ConfigRecord 'experiment'" in reply.error.reason


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("raises", "ZeroDivisionError"),
        ("none", "local_update returned None"),
        ("nan", "NaN or infinity"),
        ("shape", "wrong shape"),
        ("keys", "wrong keys"),
    ],
)
def test_a_client_half_that_fails_is_an_error_reply(how: str, why: str) -> None:
    words = ("--strategy", "tests.conformance.broken:Broken", "--strategy.how", how)
    assert why in ask(words=words).error.reason


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda message, context: None, "returned NoneType"),
        (lambda message, context: Message(RecordDict(), 5, "train"), "no reply to the one"),
        (lambda message, context: 1 / 0, "ZeroDivisionError"),
        (lambda message, context: sys.exit(3), "SystemExit"),
    ],
)
def test_the_mod_answers_for_any_app(function: Callable[..., Any], why: str) -> None:
    guarded = ClientApp(mods=[always_answers])
    guarded.train()(function)
    flower.identify()
    message = Message(RecordDict(), 5, "train")
    flower.set_message_id(message, "m2")
    reply = guarded(message, flower.context(5, {}, RecordDict(), {}))
    assert why in reply.error.reason and reply.metadata.reply_to_message_id == "m2"


# The state of a device ------------------------------------------------------------------------------------------------


def test_a_state_counts_only_once_its_round_was_accepted() -> None:
    words = ("--strategy", "tests.conformance.stateful:Remembers")
    sent = {**experiment_spec(*words), "run": "r"}
    first = ask(words=words, spec=sent, server_round=1)
    assert first.content.config_records["facts"]["state-round"] == 1
    lost = ask(
        words=words, spec={**sent, "state-round": 1}, server_round=2
    )  # Its reply is lost, so that round 2 is never accepted.
    again = ask(words=words, spec={**sent, "state-round": 1}, server_round=3)
    fresh = ask(words=words, spec=sent, server_round=3)
    after = ask(words=words, spec={**sent, "state-round": 2}, server_round=3)
    assert len({digest(r) for r in (again, fresh, after)}) == 3 and digest(lost) != digest(first)
    assert digest(again) == digest(ask(words=words, spec={**sent, "state-round": 1}, server_round=3))
    assert (
        "is not on this device's disk"
        in ask(words=words, spec={**sent, "state-round": 17}, server_round=18).error.reason
    )


def test_the_newest_states_are_kept(tmp_path: Path) -> None:
    states = States(tmp_path, "a/run", 3)
    for n in range(KEPT + 5):
        states.save(n, {"s": torch.tensor(float(n))})
    assert len(list(states.folder.iterdir())) == KEPT and float(states.load(KEPT + 4)["s"]) == KEPT + 4
    with pytest.raises(ValueError, match="round 0"):
        states.load(0)


# The imports of a device ----------------------------------------------------------------------------------------------


def test_a_device_imports_no_data_libraries() -> None:
    code = "import sys, clients.app; print([m for m in sys.modules if m.partition('.')[0] in sys.argv[1:]])"
    heavy = ["torchvision", "pandas", "sklearn", "scipy", "pyarrow", "matplotlib", "ray", "experiments", "tyro", "PIL"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
