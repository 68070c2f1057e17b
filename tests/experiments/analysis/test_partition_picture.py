"""The partition picture: of few, many and very many clients; saved by the ending of its name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.analysis.figure_files import save
from experiments.analysis.partition_picture import BARS, BUBBLES, COLUMNS, partition_picture


@pytest.mark.parametrize("clients", [3, BUBBLES + 1, BARS + 1])
@pytest.mark.parametrize("labels", [1, 4])
def test_the_picture_shows_each_client_and_label(clients: int, labels: int, tmp_path: Path) -> None:
    """Two partitions give different pixels; one partition gives the same pixels twice."""
    even = np.full((clients, labels), 2)
    odd = even.copy()
    odd[0, 0], odd[1, -1] = 9, 0
    files = [
        save(partition_picture(counts, range(labels), "t"), tmp_path / f"{i}.png")
        for i, counts in enumerate((even, odd, even) if clients == 3 else (even, odd))
    ]
    pixels = [np.asarray(Image.open(file)) for file in files]
    assert pixels[0].shape == (600, 1200, 4) and not np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[0], pixels[-1]) == (clients == 3)


def test_many_clients_are_sorted_and_in_groups_of_equal_size() -> None:
    """1000 clients of one label each, in turn: the first half of the sorted groups is all of label 0."""
    counts = np.zeros((1000, 2), int)
    counts[np.arange(1000), np.arange(1000) % 2] = 7
    cells = np.asarray(partition_picture(counts, ["a", "b"]).axes[0].images[0].get_array())
    assert (
        cells.shape == (2, COLUMNS) and (cells[0, : COLUMNS // 2] == 1).all() and (cells[0, COLUMNS // 2 :] == 0).all()
    )


def test_a_name_s_ending_says_the_kind_of_picture(tmp_path: Path) -> None:
    figure = partition_picture(np.ones((2, 2), int), ["a", "b"])
    begins = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for ending, begin in begins.items():
        assert save(figure, tmp_path / "new" / f"a{ending}").read_bytes().startswith(begin)
    with pytest.raises(ValueError, match=r"path = .*a.jpeg': must end with .png, .pdf, .svg"):
        save(figure, tmp_path / "a.jpeg")
