"""Counter-based draws: the only file of the project that makes randomness.

A draw is a pure function of a key, and a key of ``(seed, purpose, round, client, step)``: there is
no generator whose position could depend on the order of execution. Keys are mixed with
SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014);
tensors of random bits come from a keyed 32-bit integer hash in torch operations, so that
the same bits appear on every device and under ``vmap`` (idea: Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011).
"""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def key(seed: int, purpose: str, *path: int) -> int:
    """The 64-bit key of a draw. ``purpose`` is a word ("cohort", "order"); ``path`` is (round, client, step) or part of it."""
    z = _mix((zlib.crc32(purpose.encode()) * _GOLDEN + seed) & _MASK)
    for part in path:
        z = _mix((z + _GOLDEN * (part + 1)) & _MASK)
    return z


def keys(base: int, n: int) -> np.ndarray:
    """The keys ``key(..., 0) ... key(..., n - 1)`` below ``base``: (n,) uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(base) + np.uint64(_GOLDEN) * np.arange(1, n + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def permutation(base: int, n: int) -> np.ndarray:
    """A uniform permutation of ``range(n)``: (n,) int64."""
    return np.argsort(keys(base, n), kind="stable")


def sample(base: int, n: int, k: int) -> list[int]:
    """``k`` distinct numbers of ``range(n)``, uniform, in time O(k): Fisher-Yates on a sparse array.

    Raises ValueError when k > n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"sample: k = {k} of n = {n}: k must lie in 0..n")
    moved: dict[int, int] = {}
    chosen = []
    for i, word in enumerate(keys(base, k).tolist()):
        j = i + (word * (n - i) >> 64)
        chosen.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return chosen


def generator(base: int) -> np.random.Generator:
    """A NumPy generator at the start of the stream of ``base``, for distributions (Dirichlet, normal)."""
    return np.random.Generator(np.random.Philox(key=base))


def legacy(seed: int) -> np.random.RandomState:
    """The stream of ``np.random.seed(seed)``, bit for bit: for data whose authors published their script and its seed (0..2^32 - 1)."""
    return np.random.RandomState(seed)


def words(base: np.ndarray | int) -> Tensor:
    """64-bit keys (...) as pairs of 32-bit words (..., 2) int32: the form in which a tensor operation takes a key."""
    flat = np.ascontiguousarray(np.atleast_1d(np.asarray(base, dtype=np.uint64)))
    pairs = torch.from_numpy(flat.view(np.int32).reshape(*flat.shape, 2))
    return pairs if isinstance(base, np.ndarray) else pairs[0]


def _hash32(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B as a signed word
    return x ^ ((x >> 16) & 0xFFFF)


def bits(pair: Tensor, n: int) -> Tensor:
    """``n`` random 32-bit words (n,) int32 from a key's words (2,); element i depends on the key and i alone."""
    counter = torch.arange(n, dtype=torch.int32, device=pair.device)
    return _hash32((counter + pair[0]) * (pair[1] | 1))


def uniform(pair: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform numbers in [0, 1) with 24 bits, of ``shape``, from a key's words (2,)."""
    n = int(np.prod(shape, dtype=np.int64))
    return ((bits(pair, n) & 0xFFFFFF).to(dtype) / (1 << 24)).reshape(shape)


def keep_mask(pair: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """Bool mask of ``shape``, True with probability ``1 - p`` (to 2^-16), from a key's words (2,): two elements a word."""
    n = int(np.prod(shape, dtype=np.int64))
    pairs = bits(pair, (n + 1) // 2)
    halves = torch.stack([pairs & 0xFFFF, (pairs >> 16) & 0xFFFF], dim=-1)
    return halves.flatten()[:n].ge(round(p * (1 << 16))).reshape(shape)


def fold(pair: Tensor, number: int) -> Tensor:
    """The words of a sub-key: for the several draws of one step (a layer's mask, a crop)."""
    return _hash32(pair + torch.tensor([number, -1 - number], dtype=torch.int32, device=pair.device))


@contextmanager
def keyed_globals(base: int) -> Iterator[None]:
    """Run foreign code with the global generators of ``random``, NumPy and torch keyed by ``base``; restores them after."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(base)
    np.random.seed(base & 0xFFFFFFFF)
    torch.manual_seed(base & (_MASK >> 1))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
