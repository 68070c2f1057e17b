"""A task: tensors, a loss, metrics. Images, regression and sequences alike; names no data set.

Legend: N samples, B batch, K classes, T steps of a sequence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim import physical, rng
from fl_sim.tree import Tree

SampleFunction = Callable[[Tensor, Tree], Tensor]
"""``(outputs (B, ...), batch) -> (B,)``: one number a sample; the machine takes masked means."""


def cross_entropy(outputs: Tensor, batch: Tree) -> Tensor:
    """Softmax cross-entropy, nats: outputs (B, K), y (B,) int64, or a mean over time: outputs (B, T, K), y (B, T) -> (B,)."""
    if outputs.ndim == 2 and physical.possible():  # as one large batch: vmap takes the loss apart into a dozen operations
        return physical.outside(_cross_entropies, outputs, batch["y"])[0]
    if outputs.ndim == 2:
        return _cross_entropy(outputs, batch["y"])
    return F.cross_entropy(outputs.movedim(-1, 1), batch["y"], reduction="none").flatten(1).mean(1)


def _cross_entropies(outputs: Tensor, y: Tensor) -> tuple[Tensor]:
    """outputs (C, B, K), y (C, B) -> (C, B)."""
    return (_cross_entropy(outputs.flatten(0, 1), y.flatten()).reshape(y.shape),)


def _cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """outputs (B, K), y (B,) -> (B,). On a CPU many rows of few classes are taken class by class: a row alone would not fill a vector."""
    by_class = outputs.shape[1] < 16 and len(outputs) > 32 and outputs.device.type == "cpu"
    logs = outputs.t().log_softmax(0).t() if by_class else outputs.log_softmax(1)
    return F.nll_loss(logs, y, reduction="none")


def squared_error(outputs: Tensor, batch: Tree) -> Tensor:
    """Mean squared error a sample: outputs and y (B, ...) -> (B,)."""
    return (outputs - batch["y"].reshape(outputs.shape)).square().flatten(1).mean(1)


def accuracy(outputs: Tensor, batch: Tree) -> Tensor:
    """1.0 where the largest of outputs (B, K) is y (B,), else 0.0; of sequences (B, T, K), (B, T) the mean over time -> (B,)."""
    hits = (outputs.argmax(-1) == batch["y"]).to(outputs.dtype)
    return hits.flatten(1).mean(1) if hits.ndim > 1 else hits


@dataclass(frozen=True)
class Transform:
    """From stored samples to model inputs: scale, standardise, augment. x (B, ...) float of the run's dtype."""

    scale: float = 1.0
    """Factor on the stored values: 1/255 takes uint8 pixels to [0, 1]."""
    mean: Tensor | None = None
    """Subtracted after scaling; broadcasts against one sample."""
    std: Tensor | None = None
    """Divides after the mean is subtracted."""
    augment: bool = False
    """Random crop out of a reflect-padded image (4 pixels), random horizontal flip; keyed draws."""

    def __call__(self, batch: Tree, words: Tensor | None) -> Tree:
        """``words`` (2,) are the key of this batch's draws; None switches augmentation off (evaluation)."""
        x = batch["x"]
        if self.scale != 1.0:
            x = x * self.scale
        if self.mean is not None and self.std is not None:
            x = (x - self.mean.to(x)) / self.std.to(x)
        if self.augment and words is not None:
            x = _crop_flip(x, words)
        return {**batch, "x": x}


def placed(transform: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The transform with its tensors on a GPU, so that no step waits for a copy; on a CPU as it is."""
    if device.type == "cpu" or not isinstance(transform, Transform) or transform.mean is None or transform.std is None:
        return transform
    return replace(transform, mean=transform.mean.to(device, dtype), std=transform.std.to(device, dtype))


def _crop_flip(x: Tensor, words: Tensor, pad: int = 4) -> Tensor:
    """x (B, channels, height, width); the draw of sample b depends on the key and b alone, so that padding changes nothing."""
    size, height, width = x.shape[0], x.shape[-2], x.shape[-1]
    draws = [rng.uniform(rng.fold(words, n), (size,), torch.float32) for n in range(3)]
    rows = (draws[0] * (2 * pad + 1)).long()[:, None] + torch.arange(height, device=x.device)
    columns = (draws[1] * (2 * pad + 1)).long()[:, None] + torch.arange(width, device=x.device)
    columns = torch.where(draws[2][:, None] < 0.5, columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[torch.arange(size, device=x.device)[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True)
class Task:
    """What is learnt. ``train`` and ``test`` are trees of tensors with a common leading axis N: at least ``x`` and ``y``."""

    name: str
    train: Tree
    """All training samples of all clients: uint8 or float inputs ``x``, targets ``y``. Shared, read-only."""
    test: Tree
    """Central test samples; an empty tree where the task has none."""
    outputs: int
    """Size of the model's output: classes, or dimensions of the target."""
    loss: SampleFunction = cross_entropy
    metrics: Mapping[str, SampleFunction] = field(default_factory=dict)
    """More numbers a sample by name, reported as means; ``accuracy`` where it means something."""
    transform: Callable[[Tree, Tensor | None], Tree] = field(default_factory=Transform)
    labels: np.ndarray | None = None
    """(N,) class of each training sample, what label partitions divide; None for regression."""
    clients: np.ndarray | None = None
    """(N,) id 0..C-1 of each training sample's natural client (a writer, a role); None where there is none."""

    @property
    def num_train(self) -> int:
        """N of the training samples."""
        return len(self.train["y"])

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of one sample's x."""
        return tuple(self.train["x"].shape[1:])

    def ready(self, dtype: torch.dtype, most_bytes: int) -> "Task":
        """The task with its samples transformed once and for all, instead of at each step: same numbers, no work.

        Only where nothing is drawn (no augmentation) and the samples as ``dtype`` take ``most_bytes`` at most; else as it is.
        """
        made, x = self.transform, self.train["x"]
        if not isinstance(made, Transform) or made.augment or x.numel() * dtype.itemsize > most_bytes:
            return self
        if not (x.dtype == torch.uint8 or (x.is_floating_point() and made != Transform())):
            return self

        def apply(samples: Tree) -> Tree:
            return made({**samples, "x": samples["x"].to(dtype)}, None) if samples else samples

        return replace(self, train=apply(self.train), test=apply(self.test), transform=Transform())

    def subset(self, indices: np.ndarray) -> "Task":
        """The task on some of its training samples (N',), in the order given."""
        chosen = torch.from_numpy(np.ascontiguousarray(indices))
        pick = {k: v[chosen] for k, v in self.train.items()}
        labels = None if self.labels is None else self.labels[indices]
        clients = None if self.clients is None else np.unique(self.clients[indices], return_inverse=True)[1]
        return replace(self, train=pick, labels=labels, clients=clients)


def from_arrays(
    x: Any,
    y: Any,
    *,
    clients: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    loss: SampleFunction | None = None,
    metrics: Mapping[str, SampleFunction] | None = None,
    outputs: int | None = None,
    test_share: float = 0.2,
    name: str = "arrays",
) -> Task:
    """A task from arrays or tensors: x (N, ...), y (N,) integer classes or (N, ...) floats, clients (N,) any ids.

    Without a test set, a keyed ``test_share`` of the samples is set aside as one. Integer y means
    classification (cross-entropy, accuracy), float y regression (squared error), unless ``loss`` and
    ``metrics`` say otherwise. uint8 x is scaled to [0, 1]. Raises ValueError for lengths that differ
    and for NaN or infinity.
    """
    tree = {"x": torch.as_tensor(np.asarray(x)), "y": torch.as_tensor(np.asarray(y))}
    owners = None if clients is None else np.unique(np.asarray(clients), return_inverse=True)[1]
    for label, length in [("y", len(tree["y"])), ("clients", len(tree["x"]) if owners is None else len(owners))]:
        if length != len(tree["x"]):
            raise ValueError(f"from_arrays: {label} has {length} rows, x has {len(tree['x'])}; they must be equal")
    if (x_test is None) != (y_test is None):
        raise ValueError("from_arrays: of x_test and y_test one is missing; give both or neither")
    given = {} if x_test is None else {"x": torch.as_tensor(np.asarray(x_test)), "y": torch.as_tensor(np.asarray(y_test))}
    if given and len(given["x"]) != len(given["y"]):
        raise ValueError(f"from_arrays: y_test has {len(given['y'])} rows, x_test has {len(given['x'])}; they must be equal")
    if any(v.is_floating_point() and not torch.isfinite(v).all() for v in [*tree.values(), *given.values()]):
        raise ValueError("from_arrays: x, y, x_test or y_test holds NaN or infinity; clean the data first")
    classes = not tree["y"].is_floating_point()
    tree["y"] = tree["y"].long() if classes else tree["y"]
    if given:
        test = {**given, "y": given["y"].to(tree["y"].dtype)}
    else:
        order = torch.from_numpy(rng.permutation(rng.key(0, "test-share"), len(tree["y"])))
        held, kept = order[: int(test_share * len(order))], order[int(test_share * len(order)) :].sort().values
        test, tree = {k: v[held] for k, v in tree.items()}, {k: v[kept] for k, v in tree.items()}
        owners = None if owners is None else np.unique(owners[kept.numpy()], return_inverse=True)[1]
    size = outputs or (int(torch.cat([tree["y"].flatten(), test["y"].flatten()]).max()) + 1 if classes else int(tree["y"][0].numel()))
    return Task(
        name=name,
        train=tree,
        test=test,
        outputs=size,
        loss=loss or (cross_entropy if classes else squared_error),
        metrics={"accuracy": accuracy} if metrics is None and classes else dict(metrics or {}),
        transform=Transform(scale=1 / 255 if tree["x"].dtype == torch.uint8 else 1.0),
        labels=tree["y"].numpy() if classes and tree["y"].ndim == 1 else None,
        clients=owners,
    )
