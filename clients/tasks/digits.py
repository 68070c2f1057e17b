"""The embedded task: 1797 handwritten digits that come with scikit-learn, so that no download is needed.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
(its test part, as F. Pedregosa et al., "Scikit-learn: Machine Learning in Python", JMLR 12, 2011, ship it).
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from fl_sim import rng
from fl_sim.learning.measures import accuracy
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform
from fl_sim.registry import offer


@offer("task")
def digits() -> Task:
    """1438 training and 359 test digits, x (1, 8, 8) uint8 in 0..16 scaled to [0, 1], 10 classes.

    The split is drawn with a fixed key.
    """
    pixels, label = _table()
    x, y = torch.from_numpy(pixels.astype(np.uint8).reshape(-1, 1, 8, 8)), torch.from_numpy(label.astype(np.int64))
    order = torch.from_numpy(rng.permutation(rng.key(0, "digits-test"), len(y)))
    held = len(y) // 5
    test, train = order[:held].sort().values, order[held:].sort().values
    return Task(
        name="digits",
        train={"x": x[train], "y": y[train]},
        test={"x": x[test], "y": y[test]},
        outputs=10,
        metrics={"accuracy": accuracy},
        transform=Transform(scale=1 / 16),
        labels=y[train].numpy(),
    )


def _table() -> tuple[np.ndarray, np.ndarray]:
    """What ``sklearn.datasets.load_digits(return_X_y=True)`` returns: (1797, 64) pixels and (1797,) labels.

    The file is read directly, because the import of ``sklearn.datasets`` takes 1.6 s of processor time in each process;
    where scikit-learn keeps it elsewhere, scikit-learn reads it.
    """
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            with gzip.open(file, "rt") as lines:
                table = np.loadtxt(lines, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    pixels, label = load_digits(return_X_y=True)
    return pixels, label
