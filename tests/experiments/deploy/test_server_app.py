"""The server of a deployment, on nodes in this process: missing nodes, failures and their messages, resuming."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from clients.app import app
from experiments.check.same_digests import last_of_each
from experiments.deploy.server_app import ServeOptions, parse_arguments, parse_configs, serve
from experiments.runs.summary import Summary
from fl_sim.errors import ConfigError
from tests.conformance.conftest import check_same, simulated
from tests.conformance.in_process import InProcessGrid

QUICK = ServeOptions(node_timeout_s=0.6)
WORDS = ["digits-deploy", "--rounds", "2"]


def one(
    grid: InProcessGrid, tmp_path: Path, *more: str, served: ServeOptions = QUICK
) -> tuple[Summary, BaseException | None]:
    [config] = parse_configs([*WORDS, *more, "--out", str(tmp_path)])
    [result] = serve([config], grid, served)
    return result


def events(summary: Summary, kind: str) -> list[dict[str, Any]]:
    lines = (Path(summary["run_dir"]) / "events.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == kind]


def test_missing_nodes_are_named_after_the_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    summary, error = one(InProcessGrid(app, {10: 2}), tmp_path)
    assert summary["status"] == "failed" and time.monotonic() - start > 0.5
    assert "after 0.6 s no usable node is clients 0, 1 of 0..2; 1 are there" in str(error)


def test_flowers_simulation_with_too_few_nodes_is_refused_at_once(tmp_path: Path) -> None:
    """No more nodes will connect to it later."""

    class InMemoryGrid(InProcessGrid):
        pass

    with pytest.raises(ConfigError, match="clients = 3: .* has 2 nodes.*num-supernodes=3"):
        one(InMemoryGrid.of(app, 2), tmp_path)
    assert not list(tmp_path.iterdir())
    assert one(InMemoryGrid.of(app, 3), tmp_path)[0]["status"] == "completed"


def test_with_tolerance_the_rest_goes_on_without_them(tmp_path: Path) -> None:
    summary, error = one(InProcessGrid(app, {10: 2, 11: 0}), tmp_path, "--failures", "tolerate:0.4")
    assert error is None and summary["status"] == "completed" and summary["clients_failed"] == 2
    assert {(row["client"], row["reason"]) for row in events(summary, "client_failed")} == {
        (1, "its node is not connected")
    }


def test_a_node_that_refuses_and_two_with_one_number_are_named(tmp_path: Path) -> None:
    _, error = one(InProcessGrid(app, {10: 0, 11: 1, 12: 7}), tmp_path)
    assert (
        "no usable node is client 2 of 0..2" in str(error)
        and "node 12" in str(error)
        and "partition-id = 7" in str(error)
    )
    _, error = one(InProcessGrid(app, {10: 0, 11: 1, 12: 1}), tmp_path)
    assert "nodes 11 and 12 both say that they are client 1" in str(error)


def test_no_reply_in_time_is_a_failure_of_that_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid.of(app, 3)
    slow = next(node for node, client in grid.partitions.items() if client == 1)
    original = grid._call

    def call(message: Message, node: int) -> Message:
        if message.metadata.message_type == "train" and node == slow:
            grid.silent.add(node)
        return original(message, node)

    monkeypatch.setattr(grid, "_call", call)
    push = grid.push_messages

    def pushed(messages: Any) -> Any:
        ids = push(messages)
        for reply in [i for i, r in grid._replies.items() if r.metadata.src_node_id in grid.silent]:
            del grid._replies[reply]
        return ids

    monkeypatch.setattr(grid, "push_messages", pushed)
    summary, error = one(
        grid, tmp_path, "--failures", "tolerate:0.4", served=ServeOptions(node_timeout_s=5, timeout_s=0.5)
    )
    assert error is None and summary["clients_failed"] == 2
    assert {row["reason"] for row in events(summary, "client_failed")} == {"no reply within 0.5 s"}


def test_errors_of_the_superlink_are_the_clients_they_are_about(tmp_path: Path) -> None:
    grid = InProcessGrid.of(app, 3)
    node = next(node for node, client in grid.partitions.items() if client == 2)

    def tamper(at: int, reply: Message) -> Message:
        if at != node or reply.metadata.message_type != "train":
            return reply
        message = Message(Error(5, ""), reply_to=reply)
        message.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        message.metadata.__dict__["_src_node_id"] = 1  # as the SuperLink answers for a node that went away
        return message

    grid.tamper = tamper
    summary, error = one(grid, tmp_path)
    assert "round 1, client 2, train: the node went away" in str(error) and summary["status"] == "failed"
    assert (Path(summary["run_dir"]) / "model.safetensors").is_file()


@pytest.mark.parametrize(("what", "why"), [("shape", "wrong shape"), ("nan", "NaN or infinity")])
def test_a_device_is_not_trusted(what: str, why: str, tmp_path: Path) -> None:
    """An invalid reply is not pooled, though devices with this project's code never send one."""
    from fl_sim.wire import records

    grid = InProcessGrid.of(app, 3)

    def tamper(node: int, reply: Message) -> Message:
        if reply.metadata.message_type == "train" and grid.partitions[node] == 1 and reply.has_content():
            model = records.decode(reply.content.array_records["arrays"])
            name = next(iter(model))
            model[name] = model[name][None] if what == "shape" else model[name] * float("nan")
            reply.content["arrays"] = records.encode(model)
        return reply

    grid.tamper = tamper
    _, error = one(grid, tmp_path)
    assert f"client 1, train: {why}" in str(error)
    summary, error = one(grid, tmp_path, "--failures", "tolerate:0.4")
    assert error is None and summary["clients_failed"] == 2


def test_a_node_that_comes_back_under_another_id_is_found_again(tmp_path: Path) -> None:
    grid = InProcessGrid.of(app, 3)
    node = next(node for node, client in grid.partitions.items() if client == 1)
    trained = []

    def tamper(at: int, reply: Message) -> Message:
        trained.append(reply.metadata.message_type)
        if trained.count("train") == 3:  # after round 1
            grid.partitions[node + 1] = grid.partitions.pop(node, 1)
        return reply

    grid.tamper = tamper
    summary, error = one(grid, tmp_path)
    assert error is None and summary["status"] == "completed" and (node + 1, "query") in grid.asked


def test_summaries_are_left_and_a_failed_run_does_not_stop_the_next(tmp_path: Path) -> None:
    configs = parse_configs([*WORDS, "--strategy", "tests.conformance.broken:Broken,fedavg", "--out", str(tmp_path)])
    served = ServeOptions(node_timeout_s=5, report=str(tmp_path / "report"))
    results = list(serve(configs, InProcessGrid.of(app, 3), served))
    assert [error is None for _, error in results] == [False, True] and "the device gives up" in str(results[0][1])
    assert [json.loads(line)["status"] for line in (tmp_path / "report").read_text().splitlines()] == [
        "failed",
        "completed",
    ]


def test_a_server_that_died_goes_on_from_its_last_round_with_the_states_of_its_devices(tmp_path: Path) -> None:
    words = [
        *last_of_each([*WORDS, "--rounds", "4"]),
        "--cohort",
        "2",
        "--checkpoint_every",
        "1",
        "--strategy",
        "tests.conformance.stateful:Visits",
        "--out",
        str(tmp_path),
    ]
    [config] = parse_configs(words)
    grid, again = InProcessGrid.of(app, 3), InProcessGrid.of(app, 3)

    def dying(node: int, reply: Message) -> Message:
        if [kind for _, kind in grid.asked].count(
            "train"
        ) == 6:  # a device has a state of round 3 that no server accepted
            raise RuntimeError("the server dies")
        return reply

    grid.tamper = dying
    [(died, error)] = serve([config], grid, QUICK)
    assert "the server dies" in str(error) and died["rounds"] == 2
    configs, folder, _ = parse_arguments(["--resume", died["run_dir"]])
    served = ServeOptions(node_timeout_s=5, run="another", resume=folder)
    [(summary, error)] = serve(configs, again, served)
    assert error is None and summary["run_dir"] == died["run_dir"]
    check_same(summary, simulated(config))
    assert [kind for _, kind in again.asked].count("train") == 2 * 2
    [(stored, error)] = serve(configs, InProcessGrid.of(app, 3), served)
    assert error is None and stored == json.loads((Path(folder) / "summary.json").read_text())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["quickstart", "--checkpoint_every", "21"], "checkpoint_every = 21"),
        (["quickstart", "--engine", "vmap"], "engine = 'vmap'"),
        (["quickstart", "--vmap_over", "local.lr=.1,.2"], "vmap_over"),
        (["--app", "x"], "app = 'x'"),
        (["nosuch"], "recipe = 'nosuch'"),
        (["--help"], "asks for help"),
    ],
)
def test_what_devices_cannot_do_is_refused(words: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_configs(words)
