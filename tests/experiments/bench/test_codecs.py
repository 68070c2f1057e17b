"""The bench of codecs: bytes by hand."""

import pytest

from experiments.bench.codecs.__main__ import CODECS, made, main, num_bytes
from fl_sim import tree
from tests.strategies.test_codecs import normal


def test_bytes_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """110 numbers: 4 bytes each; int8 110 and two scales, fp16 220 and two exponents, powersgd 2 (10 + 10) + 10."""
    model = normal(0, w=(10, 10), b=(10,))
    sizes = {name: num_bytes(made(CODECS[name]), model) for name in ("int8", "fp16", "powersgd 2", "grouped 4")}
    assert tree.num_bytes(model) == 440
    assert sizes == {"int8": 110 + 8, "fp16": 220 + 4, "powersgd 2": 4 * 50, "grouped 4": 4 * 28}
    assert main(["--turns", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| none | 248024 | 1 | ") and len(lines) == 3 + len(CODECS)
    assert main(["--clients", "0"]) == 2
