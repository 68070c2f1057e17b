"""The samples of a Dataset are what they are, a pair only where they are one, or refused with index and cure."""

from collections import UserDict, namedtuple
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from clients.tasks import from_dataset
from experiments.run import run
from fl_sim import tree
from fl_sim.errors import ConfigError
from fl_sim.learning.arrays import from_arrays
from fl_sim.learning.measures import squared_error

X = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32))
Y = (X[:, 0] > 0).long()
PAIRS = TensorDataset(X, Y)


class Made(Dataset[Any]):
    """A user's Dataset: what ``make`` gives for an index."""

    def __init__(self, make: Any, n: int = 40) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(PAIRS)


class Pair(NamedTuple):
    first: Any
    second: Any


@pytest.mark.parametrize(
    "dataset, options",
    [
        (Made(lambda i: (X[i], Y[i])), {}),
        (Made(lambda i: [X[i].numpy(), int(Y[i])]), {}),
        (Made(lambda i: Pair(X[i], np.int64(Y[i]))), {}),
        (Made(lambda i: {"image": X[i], "label": Y[i]}), {}),
        (Made(lambda i: UserDict(pixel_values=X[i], labels=int(Y[i]))), {}),
        (Made(lambda i: {"features": X[i].tolist(), "target": int(Y[i])}), {}),
        (Made(lambda i: {"a": X[i], "b": Y[i], "image": 0}), {"keys": ("a", "b")}),
        (Made(lambda i: (X[i], i, Y[i])), {"keys": (0, 2)}),
        (list(PAIRS), {}),
        (list(Stream()), {}),
        (Subset(PAIRS, range(40)), {}),
    ],
)
def test_samples_of_all_kinds_are_the_same_task(dataset: Any, options: dict[str, Any]) -> None:
    task, arrays = from_dataset(dataset, **options), from_arrays(X, Y)
    for ours, theirs in ((task.train, arrays.train), (task.test, arrays.test)):
        assert torch.allclose(ours["x"].float(), theirs["x"]) and torch.equal(ours["y"], theirs["y"])
    assert task.outputs == 2


def test_y_is_x_where_it_is_said() -> None:
    for dataset, options in [
        (TensorDataset(X), {"keys": (0, 0)}),
        (TensorDataset(X), {"loss": squared_error}),
        (Made(lambda i: X[i]), {"keys": (0, 0)}),
        (Made(lambda i: {"x": X[i]}), {"keys": ["x", "x"]}),
    ]:
        task = from_dataset(dataset, **options)
        assert torch.equal(task.train["x"], task.train["y"]) and task.outputs == 5 and task.labels is None
    grey = from_dataset(Made(lambda i: Image.new("L", (2, 2), 51 + i % 2)), keys=(0, 0))
    assert grey.train["x"].dtype == torch.uint8 and torch.equal(grey.train["y"], grey.train["x"] / 255)


class _Point:
    pass


def _fails(i: int) -> Any:
    raise KeyError(f"no row {i}")


def _late(value: Any) -> Any:
    return Made(lambda i: value if i == 17 else (X[i], 1))


@pytest.mark.parametrize(
    "dataset, message",
    [
        (
            Made(lambda i: X[i]),
            r"samples of train have no target: they are 0: Tensor of shape \(5,\); for an autoencoder",
        ),
        (TensorDataset(X), r"have no target.*pass keys=\(0, 0\), so that y is x; otherwise give pairs"),
        (Made(lambda i: "ab"), "have no target: they are 0: str"),
        (Made(lambda i: [0.5, 1.5]), "have no target: they are 0: list"),
        (Made(lambda i: {"image": X[i], "caption": "a"}), r"have no target.*caption: str.*keys=\('image', 'image'\)"),
        (
            Made(lambda i: {"img": X[i], "fine_label": 1, "coarse_label": 0}),
            r"fine_label: int.*y is not plain to see; name both: keys=\('img', 'NAME_OF_Y'\)",
        ),
        (Made(lambda i: {"a": X[i], "label": 1}), r"dicts of a: Tensor.*x is not plain to see; name both: keys="),
        (Made(lambda i: {"x": X[i], "label": 1, "y": 2}), "y is not plain to see"),
        (Made(lambda i: {"x": X[i], "image": X[i], "y": 2}), "x is not plain to see"),
        (
            Made(lambda i: (X[i], 1, 2)),
            r"samples of train have 3 parts, 0: Tensor of shape \(5,\), 1: int, 2: int; name two",
        ),
        (Stream(), r"train is an IterableDataset \(Stream\), which has no index; if it ends, pass list\(dataset\)"),
        (DataLoader(PAIRS), r"train is a DataLoader, which gives batches; pass its Dataset: loader\.dataset"),
        ({"train": PAIRS, "test": PAIRS}, r"train is a dict of train, test; pass its parts"),
        (X, r"train is a Tensor, not a Dataset; pass arrays to from_arrays\(x, y\)"),
        ((p for p in PAIRS), "train is a generator, not a Dataset with an index; it needs __len__ and __getitem__"),
        (Dataset(), "train is a Dataset without a length"),
        (Made(lambda i: (X[i], 1), 0), "train has no samples"),
        (Made(_fails), r"sample 0 of train cannot be read: KeyError: 'no row 0' \(len\(dataset\) is 40\)"),
        (Made(lambda i: PAIRS[i], 41), r"sample 40 of train cannot be read: IndexError.*len\(dataset\) is 41"),
        (Made(lambda i: ("a text", 1)), "sample 0 of train: x: it is text; turn it into numbers"),
        (Made(lambda i: (X[i], None)), "sample 0 of train: y: it is a NoneType; it must be a tensor"),
        (Made(lambda i: (X[i], {"boxes": 1})), "sample 0 of train: y: it is a dict"),
        (
            Made(lambda i: (X[i], Image.new("RGB", (2, 2)))),
            "y: it is a picture of mode RGB; a mask must hold one class",
        ),
        (_late((X[3, :4], 1)), r"sample 17 of train: x has the shape \(4,\), sample 0 has \(5,\)"),
        (_late((X[3].double(), 1)), "sample 17 of train: x is float64, that of sample 0 is float32; give all"),
        (_late((X[3], 1.0)), r"sample 17 of train: y is float32 \(1\.0\), that of sample 0 is int64 \(1\)"),
        (_late((X[3], "cat")), r"sample 17 of train: y is text \('cat'\), that of sample 0 is int64"),
        (_late(X[3]), r"sample 17 of train has no 1, which sample 0 has; it has 0: Tensor"),
    ],
)
def test_refusals_name_the_sample_and_the_cure(dataset: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"from_dataset: .*{message}"):
        from_dataset(dataset)


@pytest.mark.parametrize(
    "keys, message",
    [
        (("a", "c"), r"keys = \('a', 'c'\): samples of train have no 'c'; they have a: Tensor"),
        ("ab", "keys = 'ab': must be two names or places"),
        (("a",), "must be two names or places"),
    ],
)
def test_keys_that_are_not_there_are_refused(keys: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dataset(Made(lambda i: {"a": X[i], "b": 1}), keys=keys)


def test_a_random_transform_is_told_and_draws_as_it_always_did() -> None:
    draws = iter(np.random.default_rng(0).normal(size=(48, 5)))
    task = from_dataset(Made(lambda i: (next(draws), i % 2)), test_share=0.0)
    assert "sample 0 of train differs when it is read again, so that its transform is random" in task.notes[0]
    assert np.array_equal(task.train["x"].numpy(), np.random.default_rng(0).normal(size=(48, 5))[:40])


def test_a_namedtuple_whose_names_are_usual_is_read_by_them() -> None:
    pair = namedtuple("pair", "label image")
    task = from_dataset(Made(lambda i: pair(i % 2, X[i])), test_share=0.0)
    assert task.train["x"].shape == (40, 5) and task.train["y"].tolist() == [0, 1] * 20
    by_place = from_dataset(Made(lambda i: pair(i % 2, X[i])), keys=(1, 0), test_share=0.0)
    assert tree.digest(by_place.train) == tree.digest(task.train)


def test_parts_that_are_not_used_are_told() -> None:
    task = from_dataset(Made(lambda i: {"input_ids": X[i], "attention_mask": X[i], "id": i, "labels": i % 2}))
    assert task.notes == ("of the samples of train, attention_mask, id is not used",)


def test_pictures_masks_and_numbers_of_torch() -> None:
    deep = [Image.fromarray(np.full((2, 2), v, np.uint16)) for v in (0, 13107)]
    task = from_dataset(Made(lambda i: (deep[i % 2], torch.tensor(i % 2))), test_share=0.0)
    assert task.train["x"][1].tolist() == [[[np.float32(0.2)] * 2] * 2] and task.train["y"].tolist() == [0, 1] * 20
    mask = Image.new("P", (2, 2), 1)
    mask.putpalette([9, 9, 9, 8, 8, 8])
    masks = from_dataset(Made(lambda i: (torch.ones(3, 2, 2), mask if i else Image.new("P", (2, 2)))), test_share=0.0)
    assert masks.train["y"].shape == (40, 2, 2) and masks.train["y"].unique().tolist() == [0, 1]
    half = from_dataset(Made(lambda i: (X[i].bfloat16().requires_grad_(), 1.5)), test_share=0.0)
    assert half.train["x"].dtype == torch.float32 and half.train["y"].dtype == torch.float32


def test_run_takes_a_dataset_as_its_task(tmp_path: Any) -> None:
    small: dict[str, Any] = {"model": "lr", "clients": 4, "rounds": 1, "out": tmp_path}
    digests = {run(task=task, **small).summary["digest"] for task in (PAIRS, list(PAIRS), from_dataset(PAIRS))}
    assert digests == {run(task=from_arrays(X, Y), **small).summary["digest"]}
    for task, message in [
        (Stream(), "task = a Stream: from_dataset: train is an IterableDataset"),
        ((X, Y), r"task = a tuple: 2 objects, not one; pass from_arrays\(x, y\)"),
        (X, r"task = a Tensor: .*pass arrays to from_arrays"),
        ({"train": PAIRS}, r"task = a dict: .*pass its parts: from_dataset\(d\['train'\], d\['test'\]\)"),
        (_Point(), r"is or makes a _Point; it must be a Task"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run(task=task, **small)
    assert tree.digest(from_dataset(PAIRS).train) == tree.digest(from_arrays(X, Y).train)
