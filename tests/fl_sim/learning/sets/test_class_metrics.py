"""The named set metrics against scikit-learn and plain loops in float64, whole and in blocks."""

import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.sets.class_metrics import BINS, OFFERED, names_in, offered
from fl_sim.learning.sets.set_metrics import as_numbers, own_metric

DRAW = np.random.default_rng(0)
SCORES = torch.from_numpy(DRAW.normal(size=(60, 4)) * 2)  # of 4 classes, of which class 2 has no label
LABELS = torch.from_numpy(DRAW.choice([0, 1, 3], 60))


def value(name: str, scores: Tensor, labels: Tensor, block: int = 1000) -> Tensor:
    metric = OFFERED[name]()
    for start in range(0, len(labels), block):
        metric.update(scores[start : start + block], labels[start : start + block])
    return metric.compute()


def calibration_error(scores: Tensor, labels: Tensor) -> float:
    """Guo et al. 2017, equation 3, by hand."""
    shares = scores.softmax(1).numpy()
    confidence, hit = shares.max(1), shares.argmax(1) == labels.numpy()
    error = 0.0
    for b in range(BINS):
        inside = (confidence >= b / BINS) & (confidence < (b + 1) / BINS)
        error += abs(hit[inside].sum() - confidence[inside].sum()) / len(labels)
    return error


def test_several_classes_against_references_and_in_blocks() -> None:
    predicted = SCORES.argmax(1)
    counts = [[int(((i == LABELS) & (predicted == j)).sum()) for j in range(4)] for i in range(4)]
    areas = [roc_auc_score(k == LABELS, SCORES.softmax(1)[:, k]) for k in (0, 1, 3)]
    expected = {
        "f1": f1_score(LABELS, predicted, average="macro"),  # class 2 is predicted, so that it counts
        "auroc": np.mean(areas),
        "calibration": calibration_error(SCORES, LABELS),
    }
    for name, right in expected.items():
        assert value(name, SCORES, LABELS).item() == pytest.approx(right, abs=1e-6)  # torchmetrics divides in float32
    assert value("confusion", SCORES, LABELS).tolist() == counts and sum(map(sum, counts)) == 60
    own = value("class_accuracy", SCORES, LABELS)
    assert own.dtype == torch.float64 and own[2].isnan()
    assert own[[0, 1, 3]].tolist() == [counts[k][k] / sum(counts[k]) for k in (0, 1, 3)]
    for name in OFFERED:
        assert torch.equal(value(name, SCORES, LABELS).nan_to_num(), value(name, SCORES, LABELS, 7).nan_to_num())


def test_two_classes_one_score_is_two_outputs_and_f1_is_of_class_1() -> None:
    score, labels = SCORES[:, :1], (LABELS > 0).long()
    two = torch.cat([torch.zeros_like(score), score], 1)
    for name in OFFERED:
        assert torch.equal(value(name, score, labels), value(name, two, labels))
    assert value("f1", score, labels).item() == pytest.approx(f1_score(labels, score[:, 0] > 0), abs=1e-6)
    assert value("auroc", score, labels).item() == pytest.approx(roc_auc_score(labels, score[:, 0]), abs=1e-6)


def test_scores_within_0_and_1_are_scores_too() -> None:
    small = SCORES.sigmoid()  # torchmetrics by itself would take a block of them for probabilities
    right = np.mean([roc_auc_score(k == LABELS, small.softmax(1)[:, k]) for k in (0, 1, 3)])
    assert value("auroc", small, LABELS, 20).item() == pytest.approx(right, abs=1e-6)
    assert value("calibration", small, LABELS, 20).item() == pytest.approx(calibration_error(small, LABELS), abs=1e-6)


def test_what_is_undefined_is_nan() -> None:
    ones, zeros = torch.ones(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    score = torch.tensor([[-1.0], [-2.0], [-3.0]])
    assert value("auroc", SCORES[:3], ones).isnan() and value("auroc", score, ones).isnan()
    assert value("f1", score, zeros).isnan() and value("f1", score, ones) == 0
    assert value("class_accuracy", score, zeros).nan_to_num(-1).tolist() == [1, -1]
    broken = SCORES.clone()
    broken[3, 1] = torch.nan
    assert all(value(name, broken, LABELS, 20).isnan().all() for name in OFFERED)
    masked = SCORES.clone()
    masked[:, 2] = -torch.inf  # a class that a model rules out
    assert not any(value(name, masked, LABELS).isnan().all() for name in OFFERED)


def test_torchmetrics_own_objects_in_blocks_are_its_functions_of_all() -> None:
    from torchmetrics import functional
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score

    for mine, right in [
        (
            MulticlassF1Score(4, average="weighted"),
            functional.f1_score(SCORES, LABELS, "multiclass", num_classes=4, average="weighted"),
        ),
        (MulticlassConfusionMatrix(4), value("confusion", SCORES, LABELS)),
    ]:
        running = own_metric("mine", mine).fresh()
        for start in (0, 25, 50):
            running.update(SCORES[start : start + 25], LABELS[start : start + 25])
        assert as_numbers(running.compute()).tolist() == right.tolist()


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_in(" f1, auroc") == ["f1", "auroc"] and names_in("") == []
    with pytest.raises(ConfigError, match=r"'auc' is unknown \(did you mean 'auroc'.*choose from f1, auroc, confusion"):
        names_in("f1,auc")
    with pytest.raises(ConfigError, match="names a metric twice"):
        names_in("f1,f1")
    monkeypatch.setitem(sys.modules, "torchmetrics", None)  # as if it were not installed
    assert list(offered("confusion,class_accuracy")) == ["confusion", "class_accuracy"]
    with pytest.raises(
        ConfigError, match=r"torchmetrics, which computes f1, is not installed; pip install 'fl-sim\[metr"
    ):
        offered("confusion,f1")


@pytest.mark.parametrize("name, classes", [("f1", 3), ("f1", 300), ("auroc", 3), ("calibration", 1), ("confusion", 3)])
def test_what_is_kept_is_what_is_said(name: str, classes: int) -> None:
    """Bytes of all tensors in the metric's lists."""
    metric = OFFERED[name]().fresh()
    scores, labels = torch.linspace(-1, 1, 5 * classes).reshape(5, classes), torch.tensor([0, 1, 0, 1, 0])
    metric.update(scores, labels)
    kept = [x for value in vars(metric).values() if isinstance(value, list) for pair in value for x in pair]
    assert sum(x.numel() * x.element_size() for x in kept) == metric.bytes_kept(scores, labels)
