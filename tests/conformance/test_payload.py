"""Trees beside the model: those that a server does not expect, and those that no noise covers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

from clients.app import app
from experiments.deploy.server_app import ServeOptions, parse_configs, serve
from experiments.run import run
from fl_sim import RoundFailed
from strategies.scaffold import Scaffold
from tests.conformance.in_process import InProcessGrid

QUICK = ServeOptions(node_timeout_s=5)
Tamper = Callable[[dict[str, Any]], Any]


def changed(record: ArrayRecord, value: Callable[[np.ndarray], np.ndarray]) -> ArrayRecord:
    """A record whose arrays are ``value`` of its own."""
    return ArrayRecord({k: Array(value(x.numpy())) for k, x in record.items()})


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (lambda content: content.pop("payload.control"), "wrong keys: missing ['control::"),
        (lambda content: content.update({"payload.more": content["arrays"]}), "wrong keys: missing [], unknown ['more"),
        (
            lambda content: content.update({"payload.control": changed(content["payload.control"], lambda x: x[None])}),
            "wrong shape: control::",
        ),
        (
            lambda content: content.update(
                {"payload.control": changed(content["payload.control"], lambda x: x.astype(np.float64))}
            ),
            "wrong dtype: control::",
        ),
        (
            lambda content: content.update(
                {"payload.control": changed(content["payload.control"], lambda x: x * np.float32("nan"))}
            ),
            "NaN or infinity in control::",
        ),
        (lambda content: content.update({"payload.": content["arrays"]}), "unknown ['::"),
    ],
)
def test_a_payload_that_is_not_what_the_server_expects_is_that_clients_failure(
    out: list[str], tamper: Tamper, reason: str
) -> None:
    grid = InProcessGrid.of(app, 3)

    def tampered(node: int, reply: Message) -> Message:
        if grid.partitions[node] == 1 and reply.has_content() and "payload.control" in reply.content:
            tamper(reply.content)  # type: ignore[arg-type]
        return reply

    grid.tamper = tampered
    [config] = parse_configs(
        ["digits-deploy", "--rounds", "1", *out, "--strategy", "scaffold", "--failures", "tolerate:0.4"]
    )
    [(summary, error)] = serve([config], grid, QUICK)
    assert error is None and summary["status"] == "completed" and summary["clients_failed"] == 1
    lines = (Path(summary["run_dir"]) / "events.jsonl").read_text().splitlines()
    [failed] = [row for row in map(json.loads, lines) if row["event"] == "client_failed"]
    assert failed["client"] == 1 and reason in failed["reason"]


def test_noise_for_privacy_does_not_cover_a_payload() -> None:
    private = DifferentialPrivacyServerSideFixedClipping(Scaffold(), 1.0, 1.0, 2)
    with pytest.raises(
        RoundFailed, match="clients of Scaffold send control beside the model, to which Diff.* no noise"
    ):
        run(recipe="digits-deploy", strategy=private, rounds=1)
