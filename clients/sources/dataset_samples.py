"""Reading the samples of a torch Dataset: which part is x, which is y, and both as arrays of one form.

Legend: N samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from clients.sources.pictures import is_transparent, scaled, to_array

X_NAMES = ("x", "image", "img", "pixel_values", "input", "inputs", "input_values", "input_ids", "features", "data")
"""Names of inputs in samples that are dicts."""
Y_NAMES = ("y", "label", "labels", "target", "targets", "class", "class_label")
"""Names of targets in samples that are dicts."""
Key = str | int
"""Where a part of a sample is: its name in a dict, or its place in a tuple."""
TWICE = 8
"""How many samples are read a second time, to see whether a transform is random."""


@dataclass(frozen=True)
class Samples:
    """All samples of a Dataset."""

    x: np.ndarray
    """(N, ...)"""
    y: np.ndarray
    """(N, ...)"""
    notes: tuple[str, ...] = ()
    """What was decided, as sentences."""


def read_samples(half: str, dataset: Any, keys: Sequence[Key] | None, own_loss: bool) -> Samples:
    """All samples of a Dataset, each read once, in order.

    Parameters
    ----------
    half : str
        ``train`` or ``test``, for errors.
    dataset : Dataset
        Anything with ``__len__`` and ``__getitem__`` that gives samples.
    keys : (name or place of x, name or place of y), optional
        Default: the usual names in a dict, the first and the second of a pair.
    own_loss : bool
        Whether the user brings a loss; samples without a target are then their own target.

    Raises
    ------
    ValueError
        That names the half, the index of the sample (from 0) and the cure.
    """
    n, notes, clear = _length(half, dataset), list[str](), 0
    at: tuple[Key, Key] = (0, 0)
    by_name = not (isinstance(keys, tuple | list) and any(isinstance(key, int) for key in keys))
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for i in range(n):
        parts = _parts(_sample(half, dataset, i), by_name)
        if i == 0:
            at, notes = _choose(half, parts, keys, own_loss)
        x, y = _pair(f"sample {i} of {half}", parts, at)
        xs.append(x)
        ys.append(y)
        _check_alike(f"sample {i} of {half}", "x", x, xs[0])
        _check_alike(f"sample {i} of {half}", "y", y, ys[0])
        clear += hasattr(parts[at[0]], "getbands") and is_transparent(parts[at[0]])
    if clear:
        notes.append(f"{clear} pictures of {half} have transparent pixels, laid over white")
    for i in range(min(n, TWICE)):  # after all samples were read, so that a random transform draws for them as always
        x, y = _pair(f"sample {i} of {half}", _parts(_sample(half, dataset, i), by_name), at)
        if not (_same(x, xs[i]) and _same(y, ys[i])):
            what = f"sample {i} of {half} differs when it is read again, so that its transform is random"
            notes.append(f"{what}; the first reading is used in all rounds; for new draws in each step use --augment")
            break
    every = np.stack(xs)
    return Samples(every, _as_target(every) if at[0] == at[1] else np.stack(ys), tuple(notes))


def _pair(where: str, parts: dict[Key, Any], at: tuple[Key, Key]) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of one sample."""
    if missing := [key for key in at if key not in parts]:
        raise ValueError(f"{where} has no {missing[0]!r}, which sample 0 has; it has {_kinds(parts)}")
    x = _array(where, "x", parts[at[0]])
    return x, x if at[0] == at[1] else _array(where, "y", parts[at[1]])


def _length(half: str, dataset: Any) -> int:
    """N. Raises ValueError for what is no Dataset of at least one sample, with what to pass instead."""
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset):
        raise ValueError(f"{half} is an IterableDataset ({kind}), which has no index; if it ends, pass list(dataset)")
    if isinstance(dataset, DataLoader):
        raise ValueError(f"{half} is a DataLoader, which gives batches; pass its Dataset: loader.dataset")
    if isinstance(dataset, Mapping):
        names = ", ".join(map(str, dataset))
        raise ValueError(f"{half} is a {kind} of {names}; pass its parts: from_dataset(d['train'], d['test'])")
    if isinstance(dataset, (np.ndarray, Tensor)) or hasattr(dataset, "iloc"):
        raise ValueError(f"{half} is a {kind}, not a Dataset; pass arrays to from_arrays(x, y)")
    if isinstance(dataset, (str, bytes, type)) or not hasattr(dataset, "__getitem__"):
        cure = "it needs __len__ and __getitem__; if it can be iterated to an end, pass list(dataset)"
        raise ValueError(f"{half} is a {kind}, not a Dataset with an index; {cure}")
    try:
        n = len(dataset)
    except (TypeError, NotImplementedError) as error:
        cure = "give it __len__, or pass a list of its samples"
        raise ValueError(f"{half} is a {kind} without a length ({error}); {cure}") from error
    if not n:
        raise ValueError(f"{half} has no samples")
    return n


def _sample(half: str, dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    except Exception as error:  # a user's code may fail in any way
        what = f"sample {index} of {half} cannot be read: {type(error).__name__}: {error}"
        raise ValueError(f"{what} (len(dataset) is {len(dataset)})") from error


def _parts(sample: Any, by_name: bool) -> dict[Key, Any]:
    """The parts of a sample by name or place. A sample that is no collection is its only part, at place 0.

    A namedtuple has parts by place, unless its names say which is x and which is y.
    """
    fields_of = getattr(sample, "__match_args__", ())
    if isinstance(sample, tuple) and by_name and all(set(fields_of) & set(usual) for usual in (X_NAMES, Y_NAMES)):
        return dict(zip(fields_of, sample, strict=True))
    if isinstance(sample, tuple) or (isinstance(sample, list) and not all(isinstance(v, int | float) for v in sample)):
        return dict(enumerate(sample))
    if isinstance(sample, Mapping):
        return dict(sample)
    if is_dataclass(sample) and not isinstance(sample, type):
        return {f.name: getattr(sample, f.name) for f in fields(sample)}
    return {0: sample}


def _choose(
    half: str, parts: dict[Key, Any], keys: Sequence[Key] | None, own_loss: bool
) -> tuple[tuple[Key, Key], list[str]]:
    """Where x and y are in each sample, and notes on parts that are not used."""
    named = not all(isinstance(key, int) for key in parts)
    at_x: Key = 0
    at_y: Key | None = 1 if len(parts) == 2 else None
    if keys is not None:
        if not isinstance(keys, tuple | list) or len(keys) != 2:
            raise ValueError(f"keys = {keys!r}: must be two names or places, those of x and y")
        if missing := [key for key in keys if key not in parts]:
            raise ValueError(
                f"keys = {tuple(keys)!r}: samples of {half} have no {missing[0]!r}; they have {_kinds(parts)}"
            )
        return (keys[0], keys[1]), []
    if named:
        xs, ys = ([name for name in usual if name in parts] for usual in (X_NAMES, Y_NAMES))
        if len(xs) != 1 or len(ys) > 1:
            which = f"{'x' if len(xs) != 1 else 'y'} is not plain to see; name both: keys=('NAME_OF_X', 'NAME_OF_Y')"
            raise ValueError(f"samples of {half} are dicts of {_kinds(parts)}: {which}")
        at_x, at_y = xs[0], ys[0] if ys else None
        if at_y is None and any(word in str(key).lower() for key in parts for word in ("label", "target", "class")):
            which = f"y is not plain to see; name both: keys=({at_x!r}, 'NAME_OF_Y')"
            raise ValueError(f"samples of {half} have the parts {_kinds(parts)}: {which}")
    elif len(parts) > 2:
        raise ValueError(f"samples of {half} have {len(parts)} parts, {_kinds(parts)}; name two by place: keys=(0, 1)")
    if at_y is None and not own_loss:
        held = f"samples of {half} have no target: they are {_kinds(parts)}"
        raise ValueError(
            f"{held}; for an autoencoder pass keys=({at_x!r}, {at_x!r}), so that y is x; otherwise give pairs (x, y)"
        )
    chosen = (at_x, at_x if at_y is None else at_y)
    unused = [str(key) for key in parts if key not in chosen]
    return chosen, [f"of the samples of {half}, {', '.join(unused)} is not used"] if unused else []


def _kinds(parts: dict[Key, Any]) -> str:
    """The parts of a sample in words, such as ``image: Image, label: int``."""
    return ", ".join(f"{key}: {_kind(value)}" for key, value in parts.items())


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) and shape else "")


def _array(where: str, name: str, value: Any) -> np.ndarray:
    """A part of a sample as an array: a picture as (channels, height, width), a mask in y as (height, width)."""
    try:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().resolve_conj()
            return np.asarray(plain.float() if plain.dtype == torch.bfloat16 else plain)
        if hasattr(value, "getbands"):
            return _mask(value) if name == "y" else _picture(value)
        if name == "x" and isinstance(value, str | bytes):
            raise ValueError("it is text; turn it into numbers in the Dataset's transform")
        array = np.asarray(value)
        if array.dtype.kind not in "biufcUS":
            raise ValueError(f"it is a {_kind(value)}; it must be a tensor, an array, a number or a picture")
    except Exception as error:  # a picture that is decoded only now may be damaged in any way
        raise ValueError(f"{where}: {name}: {error}") from error
    return array.astype(np.float32) if isinstance(value, float) else array


def _picture(value: Any) -> np.ndarray:
    pixels = to_array(value)
    return scaled(pixels) if pixels.dtype == np.uint16 else pixels


def _mask(value: Any) -> np.ndarray:
    """(H, W) classes of a segmentation mask; those of a picture with a palette are the places in the palette."""
    if value.mode not in ("1", "L", "P", "I") and not value.mode.startswith("I;16"):
        raise ValueError(f"it is a picture of mode {value.mode}; a mask must hold one class a pixel (mode L, P or I)")
    return np.asarray(value).astype(np.int64)


def _check_alike(where: str, name: str, array: np.ndarray, first: np.ndarray) -> None:
    """Raise ValueError where a sample has another form than the first one."""
    if array.shape == first.shape and array.dtype == first.dtype:
        return
    if array.shape != first.shape:
        cure = "all must be equal: resize or pad in the Dataset's transform"
        raise ValueError(f"{where}: {name} has the shape {array.shape}, sample 0 has {first.shape}; {cure}")
    kinds = [f"{a.dtype.kind}{a.dtype}" if name == "x" else _family(a) for a in (array, first)]
    if kinds[0] != kinds[1]:
        cure = "give all samples one type"
        raise ValueError(f"{where}: {name} is {_type(array)}, that of sample 0 is {_type(first)}; {cure}")


def _family(array: np.ndarray) -> str:
    return "i" if array.dtype.kind in "iu" else array.dtype.kind


def _type(array: np.ndarray) -> str:
    value = f" ({array.item()!r})" if array.ndim == 0 else ""
    return ("text" if array.dtype.kind in "US" else str(array.dtype)) + value


def _same(first: np.ndarray, again: np.ndarray) -> bool:
    return first.shape == again.shape and np.array_equal(first, again, equal_nan=first.dtype.kind in "fc")


def _as_target(x: np.ndarray) -> np.ndarray:
    """A copy of x as floats, scaled as the model gets it."""
    return scaled(x) if x.dtype == np.uint8 else x.astype(np.float32 if x.dtype.kind in "biu" else x.dtype)
