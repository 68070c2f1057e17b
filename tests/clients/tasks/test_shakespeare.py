"""Shakespeare: sequences of the fake file's roles, and perplexity.

Role p/A has "To be, or " 9 times, a line end, and "be " 30 times: 181 characters, of which 180 // 8 = 22 sequences of 8
characters have a next one; round(.2 * 22) = 4 are for the test. p/B: 8 characters 9 times, 71 // 8 = 8 sequences, 2.
"""

from pathlib import Path

import pytest
import torch

from clients.tasks.shakespeare import ALPHABET, Perplexity, shakespeare
from fl_sim.learning.measures import cross_entropy


def text(codes: torch.Tensor) -> str:
    return "".join(("?" + ALPHABET)[int(code)] for code in codes.flatten())


def test_a_role_is_cut_into_sequences_and_y_is_the_next_character(fake_data: Path) -> None:
    task = shakespeare(str(fake_data), length=8)
    assert task.clients is not None and task.client_names is not None
    assert task.clients.tolist() == [0] * 18 + [1] * 6 and task.client_names.tolist() == ["p/A", "p/B"]
    whole = "To be, or " * 9 + "\n" + "be " * 30
    own, held = (text(part["x"][:n]) for part, n in ((task.train, 18), (task.test, 4)))
    assert own + held == whole[: 22 * 8]
    assert text(task.train["y"][:18]) == whole[1 : 18 * 8 + 1]
    assert "not? to" in text(task.train["x"][18:])  # a character that the alphabet lacks has the number 0
    assert task.outputs == len(ALPHABET) + 1 == 76 and int(task.train["x"].min()) == 0


def test_perplexity_is_exp_of_the_loss() -> None:
    """Over blocks of 3 and 1 sequences: exp of the mean over all 4 * 5 characters."""
    draw = torch.Generator().manual_seed(0)
    outputs, y = torch.randn(4, 5, 7, generator=draw, dtype=torch.float64), torch.arange(20).reshape(4, 5) % 7
    metric = Perplexity().fresh()
    for part in (slice(0, 3), slice(3, 4)):
        metric.update(outputs[part], y[part])
    loss = cross_entropy(outputs, {"y": y}, class_axis=-1).mean()
    torch.testing.assert_close(metric.compute(), loss.exp(), rtol=1e-12, atol=0)


def test_bad_lengths_and_files_are_refused(fake_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.length = 0: must be at least 1"):
        shakespeare(str(fake_data), length=0)
    with pytest.raises(ValueError, match=r"task\.length = 100: no role of .* has two sequences"):
        shakespeare(str(fake_data), length=100)
    with pytest.raises(ValueError, match=r"holds no shakespeare; it must hold shakespeare\.parquet"):
        shakespeare(str(tmp_path))
    (tmp_path / "shakespeare.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"shakespeare\.parquet: cannot be read"):
        shakespeare(str(tmp_path))
