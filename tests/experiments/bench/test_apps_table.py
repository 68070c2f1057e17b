"""The comparison of Flower apps: its list, and its table from processes that have ended."""

from pathlib import Path

import pytest

from experiments.bench.apps.__main__ import read_list, table


def ended(seconds: float, code: int = 0, said: str = "done", digest: str | None = None) -> dict[str, object]:
    return {"seconds": seconds, "code": code, "said": [said], "digest": digest}


def test_ratios_are_taken_turn_by_turn_and_only_where_both_completed() -> None:
    good = [
        {"stock": ended(40), "ours": [ended(9, digest="a"), ended(11, digest="a")]},  # .25
        {"stock": ended(100), "ours": [ended(40, digest="a"), ended(60, digest="b")]},  # .5
    ]
    bad = [{"stock": ended(4, code=1, said=""), "ours": [ended(2, digest="c"), ended(2, digest="c")]}]
    rows = [{"app": name, "clients": 3, "turns": turns} for name, turns in (("good", good), ("bad", bad))]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(rows)]
    assert lines[0] == ["app", "clients", "stock, s", "ours, s", "ours / stock", "same output", "same digest"]
    assert lines[2] == ["good", "3", "40-100", "9-60", "0.38", "yes", "no"]
    assert lines[3] == ["bad", "3", "failed", "2", "", "no", "yes"]


def test_a_list_names_folders_clients_and_changes(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# apps\n/a/b 4\n\n/c 2 lr=0.1 n=3\n")
    assert [(str(app.folder), app.clients, app.changes) for app in read_list(file)] == [
        ("/a/b", 4, ""),
        ("/c", 2, "lr=0.1 n=3"),
    ]
    file.write_text("/a four\n")
    with pytest.raises(ValueError, match="give FOLDER CLIENTS"):
        read_list(file)
