"""MNIST: handwritten digits, with their writers as natural clients where these are known.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings
of the IEEE 86(11), 1998. Writers: C. Yadav, L. Bottou, "Cold Case: The Lost MNIST Digits" (QMNIST), NeurIPS 2019,
arXiv:1905.10498.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from clients.sources import cache, torchvision_files
from clients.sources import files as sources
from clients.sources.parquet_files import parquet
from fl_sim.learning.task import Task
from fl_sim.registry import offer


def _find(folder: Path) -> cache.Source | None:
    places = (folder, folder / "mnist")
    return parquet(folder / "mnist", "L") or next(filter(None, map(torchvision_files.mnist_raw, places)), None)


def _fetch(folder: Path) -> None:
    from torchvision.datasets import MNIST

    MNIST(str(folder), download=True)


@offer("task")
def mnist(data_dir: str | None = None) -> Task:
    """60 000 training and 10 000 test digits, x (1, 28, 28) uint8 scaled to [0, 1], 10 classes.

    Data come from ``data_dir``, or else from the folder FL_SIM_DATA, or else torchvision downloads them. If the folder
    of the files also has ``writers.npz`` (array ``train``: a writer id for each digit), the writers are the natural
    clients. Raises ValueError if there are no data.
    """
    holds = "mnist/train.parquet and mnist/test.parquet (columns img or image, and label), or torchvision's MNIST/raw"
    arrays, folder = sources.load(sources.DataSet("mnist", holds, _find, _fetch), data_dir)
    task = sources.image_task("mnist", arrays, outputs=10, shape=(1, 28, 28))
    if not (folder / "writers.npz").is_file():
        return task
    with np.load(folder / "writers.npz") as file:
        writers = file["train"]
    if len(writers) != task.num_train:
        raise ValueError(
            f"{folder / 'writers.npz'}: {len(writers)} writers for {task.num_train} digits; there must be one for each"
        )
    return replace(task, clients=np.unique(writers, return_inverse=True)[1].reshape(-1))
