"""``run(...)`` reads back what its result needs: the rounds and the model, and rows of clients when asked for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from experiments.run import from_arrays, run
from fl_sim.logs import checksums, reader


def test_run_reads_no_rows_of_clients_until_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    frame = reader._frame

    def counted(file: Path, *given: Any) -> Any:
        read.append(file.name)
        return frame(file, *given)

    def never(folder: Path) -> list[str]:
        raise AssertionError(folder)

    monkeypatch.setattr(reader, "_frame", counted)
    monkeypatch.setattr(checksums, "changed", never)
    draw = np.random.default_rng(0)
    task = from_arrays(draw.normal(size=(40, 2)), draw.integers(0, 2, 40), clients=np.arange(40) % 4)
    outcome = run(task=task, model=nn.Linear(2, 2), rounds=1, out=tmp_path)
    assert read == ["rounds.jsonl", "events.jsonl"]
    assert len(outcome.log.clients) == len(outcome.log.clients["client"].unique()) == 4
    assert read == ["rounds.jsonl", "events.jsonl", "clients.jsonl"]
