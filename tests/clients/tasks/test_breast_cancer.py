"""Breast cancer: scikit-learn's table, split once."""

import torch

from clients.tasks.breast_cancer import breast_cancer


def test_it_is_the_whole_table_split_once() -> None:
    task = breast_cancer()
    assert (task.num_train, len(task.test["y"]), task.inputs, task.outputs) == (456, 113, (30,), 2)
    assert torch.equal(task.train["x"].max(0).values, torch.ones(30)) and float(task.train["x"].min()) >= 0
    labels = torch.cat([task.train["y"], task.test["y"]])
    assert torch.bincount(labels).tolist() == [212, 357]  # malignant and benign, as the repository's page says
