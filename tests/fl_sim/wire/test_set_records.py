"""Set metrics in Flower's records and in the log."""

import math

import torch
from flwr.app import ConfigRecord, MetricRecord

from fl_sim.wire.set_records import from_record, to_record

VALUES = {
    "f1": torch.tensor(0.5),
    "count": torch.tensor(3),
    "auroc": torch.tensor(math.nan),
    "class_accuracy": torch.tensor([1.0, math.nan]),
    "confusion": torch.tensor([[1, 2], [3, 4], [5, 6]]),
}


def test_a_matrix_travels_row_by_row_and_is_logged_nested() -> None:
    flat = to_record(VALUES)
    assert flat["confusion"] == [1, 2, 3, 4, 5, 6] and flat["confusion.shape"] == [3, 2] and flat["auroc"] == []
    for record in (ConfigRecord(flat), MetricRecord(flat)):
        assert from_record({**record, "loss": 1.5}) == {
            "f1": 0.5,
            "count": 3,
            "auroc": None,
            "class_accuracy": [1.0, None],
            "confusion": [[1, 2], [3, 4], [5, 6]],
            "loss": 1.5,
        }
