"""A folder of pictures: classes, the test part, size and colours, and what is refused."""

from pathlib import Path

import pytest
import torch

from clients.tasks.own_pictures import folder
from tests.clients.conftest import Fakes


def test_a_fifth_of_each_class_is_the_test_set(fakes: Fakes, tmp_path: Path) -> None:
    for name, count in (("b", 11), ("a", 5), ("c", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.png").write_bytes(fakes.png(fakes.pictures(1, 6, 6, 3, seed=i)[0]))
    task = folder(str(tmp_path), size=8)
    assert task.class_names is not None and task.class_names.tolist() == ["a", "b", "c"] and task.inputs == (3, 8, 8)
    assert torch.bincount(task.train["y"]).tolist() == [4, 8, 1]
    assert torch.bincount(task.test["y"]).tolist() == [1, 3]  # 5 / 5, and 11 / 5 rounded up; of one picture none
    assert folder(str(tmp_path), size=8, gray=True).inputs == (1, 8, 8)


def test_what_holds_no_classes_is_refused(fakes: Fakes, tmp_path: Path) -> None:
    for path, message in (
        (None, "task.path = None: name a folder"),
        (str(tmp_path / "none"), "no such folder; it must hold DIR/<class>"),
        (str(tmp_path), "holds pictures in 0 class folders"),
    ):
        with pytest.raises(ValueError, match=message):
            folder(path)
    with pytest.raises(ValueError, match=r"task\.size = 0"):
        folder(str(tmp_path), size=0)
