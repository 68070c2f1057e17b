"""Of a deployment too the final model is evaluated however it ends: centrally, and on the devices unless it failed."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from clients.app import app
from experiments.deploy.server_app import parse_configs, serve
from experiments.runs.stop import Stopping
from experiments.runs.summary import Summary
from fl_sim import Run
from fl_sim.logs.round_columns import repeatable
from tests.conformance.in_process import InProcessGrid
from tests.experiments.deploy.test_server_app import QUICK, events

FINAL = ("accuracy", "loss", "personal_accuracy", "personal_loss", "digest", "rounds")
FLAGS = {"evaluate_every": 3, "partition.held_out": 0.3, "personalize_steps": 1, "personalize_every": 3}
WORDS = ["digits-deploy", *(word for key, value in FLAGS.items() for word in (f"--{key}", str(value)))]


def deployed(grid: InProcessGrid, out: Path, rounds: int) -> tuple[Summary, BaseException | None]:
    [config] = parse_configs([*WORDS, "--rounds", str(rounds), "--out", str(out)])
    [result] = serve([config], grid, QUICK)
    return result


def of_final_model(summary: Summary) -> dict[str, Any]:
    return {name: summary[name] for name in FINAL}


def lines(summary: Summary, table: str) -> list[dict[str, Any]]:
    text = (Path(str(summary["run_dir"])) / f"{table}.jsonl").read_text()
    return [repeatable(json.loads(line)) for line in text.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A deployment of one round."""
    summary, error = deployed(InProcessGrid.of(app, 3), tmp_path_factory.mktemp("one"), 1)
    assert error is None
    return summary


def test_a_deployment_that_is_stopped_has_its_final_model_evaluated_on_the_devices(
    whole: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Stopping, run: Run, row: dict[str, Any]) -> None:
        if run.round == 1:
            run.stop("time_limit = 1: over after round 1")

    monkeypatch.setattr(Stopping, "on_round_end", stop)
    summary, error = deployed(InProcessGrid.of(app, 3), tmp_path, 3)
    assert error is None and summary["status"] == "stopped"
    assert of_final_model(summary) == of_final_model(whole) and None not in of_final_model(summary).values()
    assert lines(summary, "rounds") == lines(whole, "rounds") and lines(summary, "clients") == lines(whole, "clients")


def test_one_that_failed_has_its_last_good_model_evaluated_without_its_devices(whole: Summary, tmp_path: Path) -> None:
    """Nothing is asked of devices after the failure, so that what they would have measured is null."""
    grid = InProcessGrid.of(app, 3)

    def tamper(node: int, reply: Message) -> Message:
        if sum(asked == (node, "train") for asked in grid.asked) < 2:
            return reply
        message = Message(Error(8, "out of battery"), reply_to=reply)
        message.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
        return message

    grid.tamper = tamper
    summary, error = deployed(grid, tmp_path, 3)
    assert summary["status"] == "failed" and "round 2" in str(error) and "out of battery" in str(error)
    expected = of_final_model(whole) | {"personal_accuracy": None, "personal_loss": None}
    assert of_final_model(summary) == expected and not events(summary, "not_evaluated")
    assert {kind for _, kind in grid.asked} == {"query", "train"}
