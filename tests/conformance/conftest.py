"""Compares two backends by the digest of each round's model and by the rows of the round log, times left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.config.schema import Config
from experiments.runs.execute import execute
from experiments.runs.setup import build
from experiments.runs.summary import Summary
from fl_sim import registry
from fl_sim.logs.round_columns import MEASURED, VIRTUAL

OURS = registry.names("strategies", "strategy")
STRATEGIES = [name for name, cls in OURS.items() if not getattr(cls, "asynchronous", False)]
"""Those that real devices take."""
SMALL = ["digits-deploy", "--rounds", "2"]
"""The experiment of these tests: three clients, two rounds."""
NORMED = ["--model", "tests.fl_sim.small_federation:grouped"]
"""A network with a normalisation layer that vmap can run."""
VALIDATED = ["--validation", "0.1"]
"""Samples by which a server's step may choose."""
NEEDS = {"fedbn": NORMED, "adaptive": VALIDATED, "metaoptnet": ["--strategy.support_size", "20"]}
"""Strategy -> what it needs besides."""


@pytest.fixture
def out(tmp_path: Path) -> list[str]:
    return ["--out", str(tmp_path / "runs")]


def simulated(config: Config) -> Summary:
    """Run ``config`` on SimulationGrid. Raises the error of a failed run."""
    summary, error = execute(build(config), quiet=True)
    if error is not None:
        raise error
    return summary


def rows(summary: Summary, table: str) -> list[dict[str, Any]]:
    """The rows of a table of a round log, without times, real ones and those of simulated devices."""
    lines = (Path(summary["run_dir"]) / f"{table}.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in (*MEASURED, *VIRTUAL)} for line in lines]


def check_same(a: Summary, b: Summary) -> None:
    """Assert that two runs have the same model after each round, and the same rows."""
    assert [row["digest"] for row in rows(a, "rounds")] == [row["digest"] for row in rows(b, "rounds")]
    assert rows(a, "rounds") == rows(b, "rounds")
    assert rows(a, "clients") == rows(b, "clients")
    own = {"seconds", "run_dir", "virtual_time"}
    assert {k: v for k, v in a.items() if k not in own} == {k: v for k, v in b.items() if k not in own}
