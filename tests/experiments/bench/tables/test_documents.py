"""``python -m experiments.bench.table``: it replaces sections; README.md and docs/speed.md are not stale."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.bench.tables import documents

RESULTS = documents.ROOT / "experiments" / "results"
BENCH: dict[str, Any] = json.loads((RESULTS / "bench.json").read_text(encoding="utf-8"))
START, END = (mark.format("bench") for mark in documents.MARKS)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "tables.md"
    path.write_text(f"before\n{START}\nold\n{END}\nafter\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("flag", ["--document", "--readme"])
def test_a_section_is_replaced_between_its_marks(flag: str, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(RESULTS / "bench.json"), flag, str(document)]
    assert documents.main([*command, "--check"]) == 1 and "tables.md is stale" in capsys.readouterr().err
    assert "old" in document.read_text(encoding="utf-8")  # --check changes nothing
    assert documents.main(command) == 0 and documents.main([*command, "--check"]) == 0
    text = document.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{START}\n**S1**") and text.endswith(f"{END}\nafter\n") and "old" not in text


@pytest.mark.parametrize(
    "text, message",
    [
        ("no marks\n", "must hold <!-- bench:start --> or <!-- speed:start -->"),
        (f"{START}\n", "once each, in this order"),
        (f"{END}\n{START}\n", "once each, in this order"),
        (f"{START}\n{START}\n{END}\n", "once each, in this order"),
    ],
    ids=["none", "no end", "wrong order", "twice"],
)
def test_wrong_marks_are_refused(text: str, message: str, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document.write_text(text, encoding="utf-8")
    assert documents.main([str(RESULTS / "bench.json"), "--document", str(document)]) == 2
    assert message in capsys.readouterr().err and document.read_text(encoding="utf-8") == text


def test_the_documents_say_what_the_results_say() -> None:
    results = [
        str(RESULTS / name)
        for name in ("bench.json", "sweep.json", "engines.json", "engines_meta.json", "states.json", "gpu.json")
    ]
    assert documents.main([*results, "--check"]) == 0


def test_each_document_has_its_sections() -> None:
    speed, readme, meta = (path.read_text(encoding="utf-8") for path in documents.DOCUMENTS)
    sections = ["bench", "sweep", "engines", "states", "gpu"]
    assert [name for name in (*sections, "speed") if documents.MARKS[0].format(name) in speed] == sections
    assert documents.MARKS[0].format("speed") in readme and documents.MARKS[0].format("bench") not in readme
    assert [name for name in sections if documents.MARKS[0].format(name) in meta] == []
    assert documents.MARKS[0].format("meta") in meta


def test_the_document_describes_each_workload_and_system() -> None:
    """The section itself only names them: the prose above it says what they are."""
    prose = documents.DOCUMENTS[0].read_text(encoding="utf-8").split(START)[0]
    names = {about["group"] for about in BENCH["works"]} | {row["system"] for row in BENCH["rows"]}
    assert sorted(name for name in names if f"\n| {name} | " not in prose) == []
