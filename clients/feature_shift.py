"""Feature shift: each client's pictures are changed in a way of its own, as by another camera or scanner.

Li, Jiang, Zhang, Kamp, Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021,
arXiv:2102.07623, study this kind of skew on data sets of several origins; here it is drawn, so that its strength is a
number. A client's shift is a pure function of (seed of the partition, client), the noise of a sample one of (seed,
client, place of the sample among the client's). Pictures are changed once, before any training, and keep their type;
they take the memory that they took before. So every engine, a resumed run and a device see the same ones.

Legend: N samples, n of them, C clients.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fl_sim import rng
from fl_sim.errors import ConfigError
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Transform
from fl_sim.population.partition import Partition

LEAST_CONTRAST, MOST_NOISE, MOST_DEGREES = 0.25, 0.2, 30.0
"""What strength 1 allows."""
CHUNK = 2**22
"""Numbers that are changed at a time."""


def shifts(seed: int, clients: np.ndarray, strength: float) -> dict[str, np.ndarray]:
    """What happens to the pictures of each client, by independent keyed draws.

    Parameters
    ----------
    seed : int
        The partition's seed.
    clients : (C,) integers
        Their ids.
    strength : float
        s, 0..1.

    Returns
    -------
    dict of (C,) arrays
        ``contrast``: factor on the distance to mid-grey, 4^(-s u) with u uniform in 0..1: between 1/4^s and 1.
        ``inverted``: whether black and white are exchanged, with probability s / 2.
        ``noise``: standard deviation of the noise, white being 1; uniform in 0..0.2 s.
        ``angle``: degrees of a rotation, anticlockwise; uniform in -30 s..30 s.
    """
    base = np.array(rng.key(seed, "feature-shift"), np.uint64)
    words = rng.subkeys(rng.subkeys(base, np.asarray(clients))[:, None], np.arange(4))
    u = (words >> np.uint64(11)).astype(np.float64) / 2**53
    return {
        "contrast": LEAST_CONTRAST ** (strength * u[:, 0]),
        "inverted": u[:, 1] < strength / 2,
        "noise": MOST_NOISE * strength * u[:, 2],
        "angle": MOST_DEGREES * strength * (2 * u[:, 3] - 1),
    }


def shifted(task: Task, partition: Partition, strength: float, seed: int, clients: Iterable[int] | None = None) -> Task:
    """The task, with the training samples of ``clients`` (default: all that own some) changed by their shifts.

    A client's held-out part is changed as its training part is; the central test set and validation samples are not,
    nor are samples without an owner. With strength 0 the task itself is returned.

    Raises
    ------
    ConfigError
        Where clients share samples, and for samples that are no pictures: see ``check``.
    """
    if not strength:
        return task
    if not partition.exclusive:
        why = "clients of this partition share samples, and each would need pictures of its own"
        raise ConfigError(f"partition.feature_shift = {strength}: {why}; take iid, dirichlet, natural or another one")
    white = check(task, strength)
    chosen = list(partition.working(0, len(partition)) if clients is None else clients)
    parts = partition.several(chosen)
    sizes = [len(part) for part in parts]
    rows = torch.from_numpy(np.concatenate([*parts, np.empty(0, np.int64)]))
    owners = np.repeat(np.array(chosen, np.int64), sizes)
    places = np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
    old = task.train["x"]
    new, step = old.clone(), max(CHUNK // max(old[0].numel(), 1), 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        new[rows[part]] = changed(old[rows[part]], owners[part], places[part], strength, seed, white)
    return replace(task, train={**task.train, "x": new})


def check(task: Task, strength: float) -> float:
    """The number that stands for white. Raises ConfigError unless the samples are pictures of numbers from 0 to it.

    White is 255 for uint8 and 1 for floats, or what the task's transform scales to 1. A picture has axes (channels,
    height, width) and a target that is none.
    """
    x, y, key = task.train["x"], task.train["y"], f"partition.feature_shift = {strength}: task {task.name}"
    if x.ndim != 4:
        what = f"has samples of shape {task.inputs}, which are no pictures (channels, height, width)"
        raise ConfigError(f"{key} {what}; leave it out, or give x these axes, such as (N, 1, 28, 28)")
    if y.ndim > 2:
        why = "has pictures or sequences as targets too, which a rotation would not move"
        raise ConfigError(f"{key} {why}; leave it out")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ConfigError(f"{key} has integers ({x.dtype}) as pictures; give uint8, or floats from 0 to 1")
    scale = task.transform.scale if isinstance(task.transform, Transform) else 1.0
    white = 1 / scale if scale != 1 else 255.0 if x.dtype == torch.uint8 else 1.0
    least, most = (float(v) for v in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
    if least < 0 or most > white * (1 + 1e-6):
        what = f"has pixels from {least:g} to {most:g}, where black is 0 and white {white:g}"
        raise ConfigError(f"{key} {what}; give uint8, or floats from 0 to 1, and set standardize = true")
    return white


def changed(
    x: Tensor, clients: np.ndarray, places: np.ndarray, strength: float, seed: int, white: float = 1.0
) -> Tensor:
    """Pictures x (n, channels, height, width) after the shifts of their clients: in order rotated, with less contrast,
    inverted, noisy, and cut off at black and white; of the type of ``x``, rounded where that is uint8.

    Each number depends on its own picture, client and place only, not on the others, and is made of operations that are
    exact or correctly rounded; so a device that has one client's pictures gets the same bits.

    Parameters
    ----------
    clients : (n,) integers
        The owner of each picture.
    places : (n,) integers
        The place of each picture in its owner's list, training part before held-out part: the key of its noise.
    white : float
        The number that stands for white; black is 0.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    drawn = shifts(seed, clients, strength)
    contrast, inverted, noise = (
        torch.from_numpy(drawn[name]).to(dtype)[:, None, None, None] for name in ("contrast", "inverted", "noise")
    )
    v = rotated(x.to(dtype) / white, drawn["angle"]).sub_(0.5).mul_(contrast).add_(0.5)
    v = v.mul_(1 - 2 * inverted).add_(inverted)
    base = np.array(rng.key(seed, "feature-noise"), np.uint64)
    words = rng.words(rng.subkeys(rng.subkeys(base, clients), places))
    v = v.add_(_normal(words, tuple(x.shape[1:])).to(dtype).mul_(noise)).clamp_(0, 1).mul_(white)
    return (v.round_() if x.dtype == torch.uint8 else v).to(x.dtype)


def rotated(x: Tensor, degrees: np.ndarray) -> Tensor:
    """x (n, channels, height, width), each rotated anticlockwise about its centre by its ``degrees`` (n,).

    Bilinear; what comes from outside is the nearest pixel of the border.
    """
    height, width = x.shape[2:]
    across, down = (
        ((torch.arange(size, dtype=x.dtype) + 0.5) - size / 2).reshape(shape)
        for size, shape in ((width, (1, 1, -1)), (height, (1, -1, 1)))
    )
    cos, sin = (torch.from_numpy(f(np.radians(degrees))).to(x.dtype)[:, None, None] for f in (np.cos, np.sin))
    source = [(cos * across - sin * down) * (2 / width), (sin * across + cos * down) * (2 / height)]
    return F.grid_sample(x, torch.stack(source, 3), mode="bilinear", padding_mode="border", align_corners=False)


def _normal(words: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers (n, *shape) float32 from the words (n, 2) of keys, with 16 bits each, so within 4.2 deviations."""
    size = math.prod(shape)
    whole = torch.func.vmap(lambda pair: rng.bits(pair, -(-size // 2)))(words)
    halves = torch.cat([whole & 0xFFFF, (whole >> 16) & 0xFFFF], 1)[:, :size]
    return _quantiles().index_select(0, halves.flatten()).reshape(-1, *shape)


@cache
def _quantiles() -> Tensor:
    """(65536,) quantiles of the normal distribution, at the middle of equal shares of probability."""
    quantiles: Tensor = torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16)
    return quantiles.float()
