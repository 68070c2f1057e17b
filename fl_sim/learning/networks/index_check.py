"""Whether every sample holds only indices that the network's embeddings and the task's functions can use.

On the loop an index that is too large, or negative, is an error of the client that has it. Under ``vmap`` PyTorch looks
some of them up in the weights of another client of the block (``F.embedding``), or takes them for another index
(``torch.take_along_dim``, ``F.one_hot``): a wrong number without an error. Hence all rows are checked before a run.

Legend: N samples.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fl_sim import rng
from fl_sim.kernels.in_place import copied
from fl_sim.learning.batch import Batch
from fl_sim.learning.loss import Loss
from fl_sim.learning.task import is_built_in
from fl_sim.tree import Tree

MOST_ROWS = 4096
"""How many samples are tried one by one, to find the one that fails."""
OUTSIDE = re.compile("out of (range|bounds)|Class values must be")
"""PyTorch's words for an index that is none."""


def index_problem(loss: Loss) -> str:
    """The first sample found whose numbers cannot be used as indices, in words; empty where there is none.

    Two made-up samples are tried, the least and the largest number at each place of ``x`` and of ``y``. Where these
    fail, samples that hold such a number are tried, and only one of them that fails as well is a problem. Nothing is
    tried where no number is used as an index: floats without an embedding, and targets of this project's own functions,
    which are checked elsewhere.
    """
    keys = _keys(loss)
    if not keys:
        return ""
    # On a GPU an index outside ends the process, so that these samples are tried on the CPU.
    trial = loss if loss.device.type == "cpu" else Loss(loss.training, loss.task, loss.dtype)
    for half, samples in (("train", loss.task.train), ("test", loss.task.test)):
        if samples and len(samples["y"]) and (why := _in_half(trial, samples, keys)):
            return f"{half} {why}"
    return ""


def _keys(loss: Loss) -> list[str]:
    """Which of x and y may be used as indices."""
    x, y = loss.task.train["x"], loss.task.train["y"]
    embeds = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in loss.training.modules())
    own = [f for f in (loss.task.loss, *loss.task.metrics.values()) if not is_built_in(getattr(f, "func", f))]
    pixels = x.dtype == torch.uint8  # these reach the network as floats
    return ["x"] * (embeds or not (pixels or _is_real(x))) + ["y"] * (bool(own) and not _is_real(y))


def _is_real(values: Tensor) -> bool:
    return values.is_floating_point() or values.is_complex()


def _in_half(loss: Loss, samples: Tree, keys: list[str]) -> str:
    ends = torch.tensor([0, len(samples["y"]) - 1])
    corners = {k: torch.stack([v.amin(0), v.amax(0)]) if k in keys else v[ends] for k, v in samples.items()}
    if not _error(loss, corners):
        return ""
    for row in _candidates(samples, keys):
        if error := _error(loss, {k: v[[row, row]] for k, v in samples.items()}):
            held = ", ".join(f"{key} of {_range(samples[key][row])}" for key in keys)
            cure = "an index must lie in 0..size-1: of an embedding (num_embeddings), or of the model's outputs"
            return f"row {row} ({held}) holds an index outside of what it is looked up in ({error}); {cure}"
    return ""


def _range(values: Tensor) -> str:
    low, high = values.min().item(), values.max().item()
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _candidates(samples: Tree, keys: list[str]) -> Iterator[int]:
    """Rows with the least or largest number of all, then those with that of one place, at most ``MOST_ROWS``."""
    flats = [samples[key].reshape(len(samples[key]), -1) for key in keys]
    flats = [flat.byte() if flat.dtype == torch.bool else flat for flat in flats]
    rows = [torch.stack([flat.amax(1).argmax(), flat.amin(1).argmin()]) for flat in flats]
    rows += [torch.cat([flat.argmax(0), flat.argmin(0)]) for flat in flats]
    yield from list(dict.fromkeys(torch.cat(rows).tolist()))[:MOST_ROWS]


def _error(loss: Loss, data: Tree) -> str:
    """The error of an index that network, loss or a metric raise for two samples in evaluation mode; else empty."""
    try:
        with torch.no_grad(), rng.keyed_globals(0):
            outputs, data = loss.arguments(loss.initial(), Batch(data, rng.words(0)), training=False)
            for function in (loss.task.loss, *loss.task.metrics.values()):
                function(*copied((outputs, data)))
    except Exception as error:  # any other error is reported by the probe, which sees real samples
        if isinstance(error, IndexError) or OUTSIDE.search(str(error)):
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return ""
