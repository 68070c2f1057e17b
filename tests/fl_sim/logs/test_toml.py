"""TOML files as editors on Windows write them are read; other encodings are refused with the cure."""

from pathlib import Path

import pytest

from fl_sim.logs.toml import read_toml

TEXT = 'rounds = 3\n# Größe\n[local]\nlr = 0.5\nname = "é"\n'
CONTENT = {"rounds": 3, "local": {"lr": 0.5, "name": "é"}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_line_ends_change_nothing(encoding: str, line_end: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(TEXT.replace("\n", line_end).encode(encoding))
    assert read_toml(tmp_path / "a.toml") == CONTENT


@pytest.mark.parametrize(
    "encoding, message",
    [
        ("utf-16", "it is encoded as UTF-16, but TOML is UTF-8; save it as UTF-8"),
        ("latin-1", r"line 2 is not UTF-8 \(byte 0xf6\); save it as UTF-8"),
    ],
)
def test_other_encodings_are_refused(encoding: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(TEXT.encode(encoding))
    with pytest.raises(ValueError, match=message):
        read_toml(tmp_path / "a.toml")
