"""Breast cancer: a table of 30 measurements of cell nuclei, benign or malignant, for medicine.

W. Street, W. Wolberg, O. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993 (UCI Machine
Learning Repository, Wisconsin Diagnostic), as scikit-learn ships it.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from fl_sim import rng
from fl_sim.learning.measures import accuracy
from fl_sim.learning.task import Task
from fl_sim.registry import offer


@offer("task")
def breast_cancer() -> Task:
    """456 training and 113 test patients, x (30,) float32, 2 classes: malignant 0, benign 1.

    Each measurement is divided by its largest value in the training samples, so that x lies in [0, 1]; measurements
    have narrow ranges in it: train with ``--standardize``. The split is drawn with a fixed key.
    """
    table, label = _table()
    order = rng.permutation(rng.key(0, "breast-cancer-test"), len(label))
    test, train = np.sort(order[: len(label) // 5]), np.sort(order[len(label) // 5 :])
    x, y = torch.from_numpy((table / table[train].max(0)).astype(np.float32)), torch.from_numpy(label.astype(np.int64))
    own, central = ({"x": x[torch.from_numpy(rows)], "y": y[torch.from_numpy(rows)]} for rows in (train, test))
    names = np.array(["malignant", "benign"], dtype=object)
    labels = own["y"].numpy()
    return Task("breast-cancer", own, central, 2, metrics={"accuracy": accuracy}, labels=labels, class_names=names)


def _table() -> tuple[np.ndarray, np.ndarray]:
    """What ``sklearn.datasets.load_breast_cancer(return_X_y=True)`` returns: (569, 30) and (569,).

    The file is read directly, as that of the task ``digits``, because importing ``sklearn.datasets`` takes long.
    """
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "breast_cancer.csv"
        if file.exists():
            table = np.loadtxt(file, delimiter=",", skiprows=1)
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_breast_cancer

    found, label = load_breast_cancer(return_X_y=True)
    return found, label
