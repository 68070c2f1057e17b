"""What may be wrong with samples that are no error by themselves, in words: types of x and y, words that mean nothing.

Legend: N samples, K names.
"""

import numpy as np
import torch
from torch import Tensor

NO_WORDS = ("", "nan", "NaN", "None", "NaT", "<NA>", "null")
"""Text into which missing values turn where an array or a file holds text only."""


def cure_of_inputs(x: Tensor) -> str:
    """What may be wrong with the type or shape of inputs (N, ...) that a model cannot take; "" for nothing known."""
    if not x.is_floating_point() and not x.is_complex() and x.dtype != torch.uint8:
        kind = f"x holds integers ({_dtype(x)}), which reach the model as integers, as token ids must"
        return f"{kind}; for features pass x.astype('float32')"
    if x.ndim == 1:
        return "x has one number a sample and no axis for it; for a layer of one input pass x.reshape(-1, 1)"
    return ""


def cure_of_targets(y: Tensor) -> str:
    """What may be wrong with the type of targets (N, ...) that a loss cannot take; "" for nothing known."""
    if y.dtype in (torch.int64, torch.bool) or y.is_floating_point() or y.is_complex():
        return ""
    reach = "as floats" if y.dtype == torch.uint8 else "as such"
    return f"y holds {_dtype(y)}, which reaches the loss {reach}; PyTorch's cross-entropy takes int64: y.long()"


def missing_words(key: str, codes: np.ndarray, names: np.ndarray) -> tuple[str, ...]:
    """A sentence for each name that may stand for a missing value, such as 'nan', which NumPy makes of NaN among text.

    Parameters
    ----------
    key : str
        The argument, for the sentence.
    codes : (N, ...) int64
        The place of each sample's name in ``names``.
    names : (K,)
        All names.
    """
    found = []
    for code, name in enumerate(names.tolist()):
        if isinstance(name, str) and name in NO_WORDS:
            rows = np.flatnonzero((codes == code).reshape(len(codes), -1).any(1))
            where = f"in {len(rows)} rows, the first is row {rows[0]}" if len(rows) else "in no row"
            found.append(f"{key} holds {name!r} {where}; if it stands for a missing value, drop these rows")
    return tuple(found)


def one_class(y: Tensor, ignored: int | None) -> tuple[str, ...]:
    """A sentence where all labels of y (N, ...) that count are of one class."""
    labels = y if ignored is None else y[y != ignored]
    if y.is_floating_point() or y.is_complex() or not labels.numel() or bool((labels != labels.flatten()[0]).any()):
        return ()
    return ("y holds one class only, so that there is nothing to tell apart",)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
