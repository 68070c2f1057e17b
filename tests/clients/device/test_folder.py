"""A device's own folder of pictures follows the rules of all pictures, and needs a scale that devices share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clients.device.folder import from_folder

SPEC: Any = {"task": "images", "clients": 1, "inputs": [1, 2, 2], "outputs": 2}


def save(folder: Path, values: Any) -> Path:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((2, 2), values)).save(folder / name / "1.tif")
    return folder


def test_hidden_folders_are_no_classes_and_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    folder = save(tmp_path, np.uint16(13107))
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        (folder / name).mkdir()
    task, _ = from_folder(SPEC, 0, folder)
    assert torch.equal(task.transform({"x": task.train["x"]}, None)["x"], torch.full((2, 1, 2, 2), 0.2))
    assert task.train["y"].tolist() == [0, 1]


def test_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pictures of floats \(mode F\) have no scale that all devices share"):
        from_folder(SPEC, 0, save(tmp_path, np.float32(0.5)))
