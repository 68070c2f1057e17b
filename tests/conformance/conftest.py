"""What the backends are compared by: the digest of each round's model, and the rows of the round log but for times."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from fl_sim import registry

STRATEGIES = list(registry.names("strategies", "strategy"))
SMALL = ["digits-deploy", "--rounds", "2"]
"""The experiment of the suite: three clients, two rounds."""


@pytest.fixture
def out(tmp_path: Path) -> list[str]:
    return ["--out", str(tmp_path / "runs")]


def simulated(config: Config) -> Summary:
    """The run on SimulationGrid. Raises what made it fail."""
    summary, error = execute(build(config), quiet=True)
    if error is not None:
        raise error
    return summary


def rows(summary: Summary, table: str) -> list[dict[str, Any]]:
    """A table of a round log without its times."""
    lines = (Path(summary["run_dir"]) / f"{table}.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]


def check_same(a: Summary, b: Summary) -> None:
    """The same bits after each round, and the same rows."""
    assert [row["digest"] for row in rows(a, "rounds")] == [row["digest"] for row in rows(b, "rounds")]
    assert rows(a, "rounds") == rows(b, "rounds")
    assert rows(a, "clients") == rows(b, "clients")
    own = {"seconds", "run_dir"}
    assert {k: v for k, v in a.items() if k not in own} == {k: v for k, v in b.items() if k not in own}
