"""The set metrics that this project offers by name, for tasks with classes.

The model's outputs are scores before a softmax, as cross-entropy takes them; one output is the score of class 1 against
0, as binary cross-entropy with logits takes it, and counts as the two outputs (0, score). All are computed in float64.

Legend: n labels of a set, K classes.
"""

import importlib.util
from collections.abc import Mapping

import torch
from torch import Tensor

from fl_sim import registry
from fl_sim.errors import ConfigError
from fl_sim.learning.sets.set_metrics import SetMetric

UNDEFINED = torch.tensor(torch.nan, dtype=torch.float64)
BINS = 15
"""Bins of the calibration error, as in Guo et al., "On Calibration of Modern Neural Networks", 2017."""


class ClassMetric(SetMetric):
    """A metric of scores (n, K) and classes (n,). Undefined where a score is NaN or plus infinity."""

    by_class = True

    def __init__(self) -> None:
        self.classes = 0
        self.broken = False

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in scores (n, K), or (n, 1) of two classes, and classes (n,)."""
        scores = outputs.double()
        if scores.shape[1] == 1:
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        self.classes = scores.shape[1]
        self.broken = self.broken or bool((scores.isnan() | (scores == torch.inf)).any())
        if not self.broken:
            self.add(scores, targets.long())

    def compute(self) -> Tensor:
        """The value; see ``value``."""
        return UNDEFINED if self.broken else self.value()

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Take in float64 scores (n, K) without NaN, and classes (n,) int64."""
        raise NotImplementedError

    def value(self) -> Tensor:
        """The metric over at least one label."""
        raise NotImplementedError


class Confusion(ClassMetric):
    """(K, K): how many labels of class i (row) are predicted as class j (column), the class of the highest score."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = torch.zeros((), dtype=torch.int64)

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Count."""
        cells = targets * self.classes + scores.argmax(1)
        self.counts = self.counts + torch.bincount(cells, minlength=self.classes**2)

    def value(self) -> Tensor:
        """The counts."""
        return self.counts.reshape(self.classes, self.classes)


class ClassAccuracy(Confusion):
    """(K,): of each class, the share of its labels that are predicted right; NaN of a class without labels."""

    def value(self) -> Tensor:
        """The diagonal of the confusion matrix over the sums of its rows."""
        counts = super().value().double()
        return counts.diagonal() / counts.sum(1)


class _Pairs(ClassMetric):
    """A metric that keeps a number, or a row of numbers, and an integer of each label until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def kept(self) -> tuple[Tensor, Tensor]:
        """Those of all labels, in the order in which they came: (n, ...), and (n,) int64."""
        first, second = zip(*self.pairs, strict=True)
        return torch.cat(first), torch.cat(second).long()


class F1(_Pairs):
    """Two classes: the F1 score of class 1. More: the mean of the classes' scores (macro).

    The mean is over classes that occur among the labels or the predictions. With two classes, NaN where class 1 occurs
    in neither.
    """

    needs_torchmetrics = True

    def bytes_kept(self, outputs: Tensor, targets: Tensor) -> int:
        """Predictions and labels."""
        return 2 * targets.numel() * _small(targets, outputs.shape[1]).element_size()

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Keep predictions and labels."""
        self.pairs.append((_small(scores.argmax(1), self.classes), _small(targets, self.classes)))

    def value(self) -> Tensor:
        """torchmetrics' score."""
        from torchmetrics.functional import classification  # imported here: optional, and takes seconds

        predicted, targets = self.kept()
        if self.classes > 2:
            return classification.multiclass_f1_score(predicted.long(), targets, self.classes, average="macro")
        if not (predicted.any() or targets.any()):
            return UNDEFINED
        return classification.binary_f1_score(predicted.long(), targets)


class Auroc(_Pairs):
    """The area under the ROC curve: the mean, over the classes that occur, of each class against the others (macro).

    With two classes it is that of class 1. NaN where fewer than two classes occur. Exact: no thresholds are chosen.
    """

    takes_softmax = True
    needs_torchmetrics = True

    def bytes_kept(self, outputs: Tensor, targets: Tensor) -> int:
        """The probabilities, as float64, and the labels."""
        classes = max(outputs.shape[1], 2)
        return targets.numel() * (8 * classes + _small(targets, classes).element_size())

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Keep probabilities and labels."""
        # torchmetrics applies a softmax only to blocks with a score outside of 0..1, so that it is applied here
        self.pairs.append((scores.softmax(1), _small(targets, self.classes)))

    def value(self) -> Tensor:
        """The mean of torchmetrics' areas."""
        from torchmetrics.functional import classification  # imported here: optional, and takes seconds

        shares, targets = self.kept()
        present = torch.bincount(targets).nonzero().flatten().tolist()
        if len(present) < 2:
            return UNDEFINED
        areas = [classification.binary_auroc(shares[:, k], (targets == k).long()).double() for k in present]
        return torch.stack(areas).mean()


class Calibration(_Pairs):
    """The expected calibration error: |accuracy - confidence| in each bin of confidence, weighted by its labels.

    The confidence is the probability of the predicted class, also with two classes; ``BINS`` bins of equal width, the
    l1 norm (torchmetrics' ``CalibrationError``, task "multiclass").
    """

    takes_softmax = True
    needs_torchmetrics = True

    def bytes_kept(self, outputs: Tensor, targets: Tensor) -> int:
        """A confidence, as float64, and a truth value for each label."""
        return 9 * targets.numel()

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Keep each label's confidence, and whether the prediction is right."""
        confidence, predicted = scores.softmax(1).max(1)
        self.pairs.append((confidence, predicted == targets))

    def value(self) -> Tensor:
        """torchmetrics' error; its binary form bins any confidences."""
        from torchmetrics.functional import classification  # imported here: optional, and takes seconds

        confidences, hits = self.kept()
        return classification.binary_calibration_error(confidences, hits, n_bins=BINS, norm="l1")


def _small(classes: Tensor, count: int) -> Tensor:
    """Numbers of classes 0..count-1 in the type that takes the least memory."""
    return classes.to(torch.uint8 if count <= 256 else torch.int32)


OFFERED: Mapping[str, type[ClassMetric]] = {
    "f1": F1,
    "auroc": Auroc,
    "confusion": Confusion,
    "calibration": Calibration,
    "class_accuracy": ClassAccuracy,
}
"""The set metrics by name."""


def names_in(text: str) -> list[str]:
    """The names in a text with commas. Raises ConfigError for a name that is not offered, or given twice."""
    names = [part.strip() for part in text.split(",")] if text.strip() else []
    for name in names:
        if name not in OFFERED:
            near = registry.nearest(name, list(OFFERED))
            raise ConfigError(f"set_metrics = {text!r}: {name!r} is unknown{near}; choose from {', '.join(OFFERED)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"set_metrics = {text!r}: names a metric twice; give each once")
    return names


def offered(text: str) -> dict[str, SetMetric]:
    """The metrics that a text with commas names. Raises ConfigError also where torchmetrics is needed and missing."""
    found: dict[str, SetMetric] = {name: OFFERED[name]() for name in names_in(text)}
    needing = [name for name, metric in found.items() if metric.needs_torchmetrics]
    if needing and importlib.util.find_spec("torchmetrics") is None:
        without = ", ".join(name for name, cls in OFFERED.items() if not cls.needs_torchmetrics)
        missing = f"torchmetrics, which computes {', '.join(needing)}, is not installed"
        cure = f"pip install 'fl-sim[metrics]', or use only {without}"
        raise ConfigError(f"set_metrics = {text!r}: {missing}; {cure}")
    return found
