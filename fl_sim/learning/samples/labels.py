"""A user's targets: classes as words or numbers become 0..K-1, and what is ambiguous is refused.

Legend: N training samples, M test samples, K classes.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fl_sim.learning.measures import IGNORED
from fl_sim.learning.samples.sample_checks import BadSamples, is_missing, numbers_of, raw
from fl_sim.learning.samples.sample_cures import missing_words

SHOWN = 20
"""How many classes of a table are printed."""


@dataclass(frozen=True)
class Targets:
    """Targets as a task holds them: int64 classes, or floats."""

    y: Tensor
    y_test: Tensor | None
    names: np.ndarray | None = None
    """(K,) the user's own name of each class, where classes were encoded; None where they are 0..K-1 already."""
    ignored: int | None = None
    """The label that does not count."""
    notes: tuple[str, ...] = ()
    """What was decided that a user should know, as sentences."""


def targets(y: object, y_test: object, *, outputs: int | None, own_loss: bool, ignored: int | None) -> Targets:
    """Targets from what a user passes as ``y`` and ``y_test``.

    Parameters
    ----------
    y, y_test : (N, ...), and (M, ...) or None
        Words, integers, booleans or floats.
    outputs : int or None
        The number of classes where the user gives it: integers of 0..outputs-1 then stay as they are.
    own_loss : bool
        Whether the user brings a loss: numbers then reach it unchanged, whatever they mean.
    ignored : int or None
        The label that does not count; it is left out of all checks and never encoded. None: -100, as in PyTorch, where
        integers hold it.

    Raises
    ------
    BadSamples
        For labels that could mean two things, and for labels of ``y_test`` that ``y`` lacks where classes are encoded.
    """
    if (words := _words("y", y)) is not None:
        if ignored not in (None, IGNORED):
            cure = f"pass integers, with {IGNORED} for what does not count"
            raise BadSamples(f"ignore_index = {ignored}: y holds text, where no label is a number; {cure}")
        return _encoded_words(words, None if y_test is None else _words("y_test", y_test), y_test, outputs)
    ours = numbers_of("y", y, torch.int64)
    theirs = None if y_test is None else _test_numbers(y_test)
    if ours.is_floating_point() or ours.is_complex():
        return replace(_floats(ours, theirs, own_loss), ignored=ignored)
    if theirs is not None and theirs.is_floating_point() and not bool((theirs == theirs.round()).all()):
        raise BadSamples("y holds integers, which are classes, and y_test fractions; give both the same form")
    y, y_test = ours.long(), None if theirs is None else theirs.long()
    notes: tuple[str, ...] = ()
    if ignored is None and any(bool((v == IGNORED).any()) for v in (y, y_test) if v is not None):
        ignored, notes = IGNORED, (f"y holds {IGNORED}, which counts neither in loss nor in accuracy",)
    _check_labelled(y, ignored)
    done = Targets(y, y_test) if own_loss else _integers(y, y_test, outputs, ignored)
    return replace(done, ignored=ignored, notes=(*notes, *done.notes))


def _test_numbers(y_test: object) -> Tensor:
    if _words("y_test", y_test) is not None:
        raise BadSamples("y_test holds text, y numbers; give both the same form")
    return numbers_of("y_test", y_test, torch.int64)


# Words --------------------------------------------------------------------------------------------------------------


def _words(key: str, values: object) -> np.ndarray | None:
    """(N, ...) the labels as text, None where they are no text. Raises BadSamples for text among other values."""
    array = raw(key, values)
    if isinstance(array, Tensor) or array.dtype.kind not in "USTO" or array.ndim == 0:
        return None
    if array.dtype.kind in "UT":
        return array.astype(object)
    flat = array.ravel().tolist()
    text = [isinstance(v, str | bytes) for v in flat]
    if not any(text):
        return None
    if not all(text):
        i = text.index(False)
        row, first = i * len(array) // len(flat), text.index(True) * len(array) // len(flat)
        if is_missing(flat[i]):
            count = sum(map(is_missing, flat))
            problem = f"{key} has no label in row {row} ({flat[i]!r}), as in {count} of {len(array)} rows"
            raise BadSamples(f"{problem}; drop these rows, or name their class")
        mixed = f"{key} mixes text and numbers: {flat[text.index(True)]!r} in row {first}, {flat[i]!r} in row {row}"
        raise BadSamples(f"{mixed}; make them one kind, such as [str(v) for v in {key}]")
    decoded = [v.decode(errors="backslashreplace") if isinstance(v, bytes) else v for v in flat]
    return np.array(decoded, dtype=object).reshape(array.shape)


def _encoded_words(y: np.ndarray, y_test: np.ndarray | None, given: object, outputs: int | None) -> Targets:
    """Classes are numbered in the order of their sorted words; words that spell integers sort as these."""
    if y_test is None and given is not None:
        raise BadSamples("y holds text, y_test does not; give both the same form")
    if not y.size:
        raise BadSamples("y has no rows; it must have one row a sample")
    known = sorted(set(y.ravel().tolist()))
    if all(word.isdecimal() and word.isascii() for word in known):
        known.sort(key=int)
    _check_many(y, known)
    places = {word: i for i, word in enumerate(known)}
    if y_test is not None:
        flat = y_test.ravel().tolist()
        if (i := next((i for i, word in enumerate(flat) if word not in places), None)) is not None:
            _refuse_unknown(flat[i], i * len(y_test) // len(flat), known)
    names = np.array(known, dtype=object)
    return _encoded(y, y_test, names, places, outputs)


def _encoded(
    y: np.ndarray, y_test: np.ndarray | None, names: np.ndarray, places: dict[object, int], outputs: int | None
) -> Targets:
    if outputs is not None and outputs < len(names):
        raise BadSamples(f"outputs = {outputs}: y holds {len(names)} classes ({_table(names)}); give at least as many")

    def codes(values: np.ndarray) -> Tensor:
        flat = np.fromiter((places[v] for v in values.ravel().tolist()), np.int64, values.size)
        return torch.from_numpy(flat.reshape(values.shape))

    coded, note = codes(y), f"y holds {len(names)} classes, which are encoded: {_table(names)}"
    notes = (note, *missing_words("y", coded.numpy(), names))
    return Targets(coded, None if y_test is None else codes(y_test), names, notes=notes)


def _table(names: np.ndarray) -> str:
    shown = ", ".join(f"{name!r} -> {i}" for i, name in enumerate(names.tolist()[:SHOWN]))
    return f"{shown}, and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def _check_many(y: np.ndarray, known: list[object]) -> None:
    if len(known) > SHOWN and 2 * len(known) > len(y):
        problem = f"y holds {len(known)} different values in {len(y)} rows, such as {known[0]!r} and {known[1]!r}"
        cure = "numbers to predict must be floats (y.astype('float32')); classes must be fewer, or 0..K-1"
        raise BadSamples(f"{problem}: hardly classes; {cure}")


def _refuse_unknown(label: object, row: int, known: list[object]) -> None:
    some = ", ".join(map(repr, known[:SHOWN]))
    raise BadSamples(f"y_test holds {label!r} in row {row}, a class that y lacks; y has {some}")


# Integers -----------------------------------------------------------------------------------------------------------


def _check_labelled(y: Tensor, ignored: int | None) -> None:
    if ignored is not None and bool((y == ignored).all()):
        raise BadSamples(f"ignore_index = {ignored}: every label of y is ignored; none is left to learn")


def _integers(y: Tensor, y_test: Tensor | None, outputs: int | None, ignored: int | None) -> Targets:
    """Classes 0..K-1 stay as they are; -1/+1, 1..K and numbers with wide gaps are encoded; strays are refused."""
    _check_one_hot(y)
    known = _values(y, ignored)
    both = known if y_test is None else np.union1d(known, _values(y_test, ignored))
    low, high = int(both[0]), int(both[-1])
    if low >= 0 and (high < outputs if outputs is not None else _dense(both) or y.ndim > 1):
        return Targets(y, y_test, notes=_remarks(known, both, outputs))
    signs = both.tolist() == [-1, 1]
    if low < 0 and not (signs and y.ndim == 1):
        _refuse_stray(y, y_test, low, both[both >= 0])
    if outputs is not None and not (signs and outputs == 2) and not (low == 1 and high == outputs and y.ndim == 1):
        _refuse_stray(y, y_test, high, both[both < outputs], outputs)
    if len(both) > 2 and _dense(both[:-1]):
        _refuse_stray(y, y_test, high, both[:-1])
    _check_many(y.numpy(), known.tolist())
    if len(known) < len(both):
        [(label, row)] = [_first_of(y_test, np.setdiff1d(both, known))] if y_test is not None else []
        _refuse_unknown(label, row, known.tolist())
    names = np.arange(1, outputs + 1) if outputs is not None and low == 1 else known
    coded = None if y_test is None else _placed(y_test, names, ignored)
    note = f"y holds {len(names)} classes, which are encoded: {_table(names)}"
    return Targets(_placed(y, names, ignored), coded, names, notes=(note,))


def _values(y: Tensor, ignored: int | None) -> np.ndarray:
    """The different labels of y, ascending, without the one that is ignored."""
    flat = y.flatten()
    low, high = int(flat.min()), int(flat.max())
    if high - low < 1 << 20:  # a count is far cheaper than sorting
        known = low + torch.bincount(flat - low).nonzero().flatten().numpy()
    else:
        known = np.unique(flat.numpy())
    return known if ignored is None else known[known != ignored]


def _dense(known: np.ndarray) -> bool:
    """Whether ``known`` looks like 0..K-1 with some classes that no sample has: 0 and at least half of them occur."""
    return bool(known[0] == 0 and 2 * len(known) > known[-1])


def _remarks(known: np.ndarray, both: np.ndarray, outputs: int | None) -> tuple[str, ...]:
    notes = []
    if outputs is None and len(both) <= both[-1]:
        missing = np.setdiff1d(np.arange(both[-1] + 1), both)
        notes.append(f"no sample has class {_listed(missing)} of 0..{both[-1]}; the model has an output for it")
    if len(known) < len(both):
        notes.append(f"y_test holds class {_listed(np.setdiff1d(both, known))}, which y lacks")
    return tuple(notes)


def _listed(classes: np.ndarray) -> str:
    shown = ", ".join(map(str, classes[:SHOWN].tolist()))
    return f"{shown} and {len(classes) - SHOWN} more" if len(classes) > SHOWN else shown


def _first_of(y: Tensor, labels: np.ndarray) -> tuple[int, int]:
    """(label, row) of the first row of y (N, ...) that holds one of ``labels``."""
    rows = y.reshape(len(y), -1)
    found = torch.isin(rows, torch.from_numpy(labels))
    row = int(found.any(1).nonzero()[0])
    return int(rows[row][found[row]][0]), row


def _refuse_stray(y: Tensor, y_test: Tensor | None, label: int, others: np.ndarray, outputs: int | None = None) -> None:
    """Refuse a label that is no class among ``others``, with its row and what it may mean."""
    key, values = ("y", y) if bool((y == label).any()) or y_test is None else ("y_test", y_test)
    _, row = _first_of(values, np.array([label]))
    count = int((values == label).reshape(len(values), -1).any(1).sum())
    rows = f"row {row}" if count == 1 else f"row {row} and {count - 1} more"
    among = f" among {len(others)} classes {others[0]}..{others[-1]}" if len(others) else ""
    limit = f", outputs = {outputs}" if outputs is not None else ""
    cure = f"if it means no label, pass ignore_index={label} or drop these rows; if it is a class, "
    cure += "number the classes 0..K-1, for instance np.unique(y, return_inverse=True)[1]"
    if label < 0:
        cure += "; numbers to predict must be floats, y.astype('float32')"
    raise BadSamples(f"{key} holds {label} in {rows}{among}{limit}; {cure}")


def _placed(y: Tensor, names: np.ndarray, ignored: int | None) -> Tensor:
    """The place of each label in the sorted ``names``; the ignored label stays."""
    places = torch.from_numpy(np.searchsorted(names, y.numpy()))
    return places if ignored is None else torch.where(y == ignored, y, places)


# Floats -------------------------------------------------------------------------------------------------------------


def _floats(y: Tensor, y_test: Tensor | None, own_loss: bool) -> Targets:
    """A regression, unless the floats look like classes; a loss of the user's says that they are meant."""
    if y_test is not None and not (y_test.is_floating_point() or y_test.is_complex()):
        y_test = y_test.to(y.dtype)
    done = Targets(y, None if y_test is None else y_test.to(y.dtype))
    if own_loss or y.is_complex():
        return done
    _check_one_hot(y)
    if y[0].numel() > 1:
        return replace(done, notes=_rows_like_classes(y))
    if not bool((y == y.round()).all()):
        return done
    known = np.unique(y.double().numpy()).tolist()
    if known in ([0.0, 1.0], [-1.0, 1.0]):
        problem = f"y holds only {known[0]} and {known[1]}, as floats: two classes, or numbers to predict?"
        raise BadSamples(f"{problem} For classes pass y.astype(int), for a regression loss=fl_sim.squared_error")
    if 2 < len(known) <= SHOWN and 2 * len(known) < len(y):
        what = f"y holds {len(known)} whole numbers as floats, from {known[0]:g} to {known[-1]:g}"
        return Targets(done.y, done.y_test, notes=(f"{what}: a regression; for classes pass y.astype(int)",))
    return done


def _rows_like_classes(y: Tensor) -> tuple[str, ...]:
    """A note on y (N, K), K > 1, that holds several labels or probabilities a sample, and is taken as numbers."""
    if y.ndim != 2 or bool((y < 0).any()):
        return ()
    if bool(((y == 0) | (y == 1)).all()):
        what = "y holds only 0.0 and 1.0, several a sample (labels?)"
    elif bool(((y.double().sum(1) - 1).abs() < 1e-3).all()):
        what = "each row of y sums to 1 (probabilities of classes?)"
    else:
        return ()
    return (f"{what}: a regression by squared error, unless you pass a loss",)


def _check_one_hot(y: Tensor) -> None:
    """Refuse y (N, K), K > 1, each row of which holds one 1 and zeros."""
    if y.ndim != 2 or y.shape[1] < 2:
        return
    if bool(((y == 0) | (y == 1)).all() & ((y == 1).sum(1) == 1).all()):
        problem = f"y has one row of {y.shape[1]} numbers a sample, one of them 1 and the others 0: one-hot classes"
        cure = "pass y.argmax(1); if they are meant as numbers, pass the loss too, such as loss=fl_sim.squared_error"
        raise BadSamples(f"{problem}; {cure}")
