"""The bench of many client rows: what it writes is a run's log, and both readers give the same frame of it."""

from pathlib import Path

import pandas as pd
import pytest

from experiments.bench import log_rows
from fl_sim import load
from fl_sim.logs import reader


def test_the_folder_holds_as_many_rows_and_both_readers_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_rows, "PER_ROUND", 40)
    folder = log_rows.write(tmp_path, 100)
    frames = {}
    for kind, size in (("pyarrow", 1), ("plain", log_rows.READERS["plain"])):
        monkeypatch.setitem(log_rows.READERS, kind, size)
        monkeypatch.setattr(reader, "MANY", reader.MANY)
        assert log_rows.main(["--measure", str(folder), kind]) == 0
        assert '"rows": 100' in capsys.readouterr().out and size == reader.MANY
        frames[kind] = load(folder).clients
    pd.testing.assert_frame_equal(frames["pyarrow"], frames["plain"])
    assert frames["plain"]["round"].value_counts().to_dict() == {1: 40, 2: 40, 3: 20}
    assert frames["plain"].loc[frames["plain"]["round"] == 3, "client"].nunique() == 20


def test_the_command_shows_medians(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    took = iter([3.0, 1.0, 2.0])

    def in_turn(folder: Path, kinds: list[str], turns: int) -> dict[str, list[dict[str, object]]]:
        assert kinds == ["pyarrow"] and (folder / "clients.jsonl").is_file()
        return {"pyarrow": [{"rows": 5, "s": next(took), "cpu_s": 4.0, "mb": None} for _ in range(turns)]}

    monkeypatch.setattr(log_rows, "in_turn", in_turn)
    assert log_rows.main(["--rows", "5"]) == 0
    assert "| pyarrow | 5 | 0 | 2.00 (1.00-3.00) | 4.00 (4.00-4.00) | unknown |" in capsys.readouterr().out
