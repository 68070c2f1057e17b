"""CIFAR-10: small colour pictures of ten classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto, 2009.
"""

from pathlib import Path

from clients.sources import cache, files, torchvision_files
from clients.sources.parquet_files import parquet
from fl_sim.learning.task import Task
from fl_sim.registry import offer


def _find(folder: Path) -> cache.Source | None:
    places = (folder, folder / "cifar10")
    return parquet(folder / "cifar10", "RGB") or next(filter(None, map(torchvision_files.cifar_batches, places)), None)


def _fetch(folder: Path) -> None:
    from torchvision.datasets import CIFAR10

    CIFAR10(str(folder), download=True)


@offer("task")
def cifar10(data_dir: str | None = None) -> Task:
    """50 000 training and 10 000 test pictures, x (3, 32, 32) uint8 scaled to [0, 1], 10 classes.

    Data come from ``data_dir``, or else from the folder FL_SIM_DATA, or else torchvision downloads them. Raises
    ValueError if there are none.
    """
    tables = "cifar10/train.parquet and cifar10/test.parquet (columns img or image, and label)"
    holds = f"{tables}, or torchvision's cifar-10-batches-py"
    arrays, _ = files.load(files.DataSet("cifar10", holds, _find, _fetch), data_dir)
    return files.image_task("cifar10", arrays, outputs=10, shape=(3, 32, 32))
