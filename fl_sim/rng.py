"""Counter-based random draws: the only file of the project that generates random numbers.

A draw is a pure function of a key, and a key is a pure function of ``(seed, purpose, round, client, step)``: there is
no generator whose position could depend on the order of execution. Keys are mixed with SplitMix64 (Steele, Lea, Flood:
"Fast splittable pseudorandom number generators", OOPSLA 2014). Tensors of random bits come from a keyed 32-bit integer
hash in torch operations, so that every device, with or without ``vmap``, gives the same bits (idea: Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

import math
import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import numpy as np
import torch
from numpy.random import mtrand
from torch import Tensor

try:
    from torch._C._functorch import is_functorch_wrapped_tensor
except ImportError:
    HAS_WRAPPED_CHECK = False
else:
    HAS_WRAPPED_CHECK = True
_outside_transforms: Callable[[], AbstractContextManager[object]] = getattr(torch._C, "_DisableFuncTorch", nullcontext)

ENTROPY = ((os, "urandom"), (random, "_urandom"))
"""Where Python draws from the operating system: ``secrets``, ``uuid`` and NumPy generators without a seed do."""
SEEDERS = ((random.Random, "seed", 3), (random, "seed", 2))
"""Where Python's generators are seeded, and how many calls above a replacement the code is that wants that."""
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_STEPS = np.arange(1, 4097, dtype=np.uint64) * np.uint64(_GOLDEN)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def key(seed: int, purpose: str, *path: int) -> int:
    """The 64-bit key of a draw.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str
        What the draw is for, such as "cohort" or "order": draws for different purposes are independent.
    *path : int
        (round, client, step), or the first of these.
    """
    z = _mix((zlib.crc32(purpose.encode()) * _GOLDEN + seed) & _MASK)
    for part in path:
        z = _mix((z + _GOLDEN * (part + 1)) & _MASK)
    return z


def keys(base: int, n: int) -> np.ndarray:
    """The sub-keys ``key(..., 0) ... key(..., n - 1)`` of ``base``, which is ``key(...)``: (n,) uint64."""
    steps = _STEPS[:n] if n <= len(_STEPS) else np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    z = steps + np.uint64(base)
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    z ^= z >> _S31
    return z


def subkeys(bases: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The sub-key ``key(..., number)`` of each base, for many clients at once.

    ``bases`` (uint64) and ``numbers`` (integers) are broadcast against each other.
    """
    z = bases + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return np.asarray(z ^ (z >> _S31))


def seed_keys(seeds: np.ndarray, purpose: str) -> np.ndarray:
    """``key(seed, purpose)`` for each seed of a uint64 array."""
    return subkeys(seeds, np.array([zlib.crc32(purpose.encode()) - 1]))


def permutation(base: int, n: int) -> np.ndarray:
    """A uniform permutation of ``range(n)``: (n,) int64."""
    return keys(base, n).argsort(kind="stable")


def sample(base: int, n: int, k: int) -> list[int]:
    """``k`` distinct numbers of ``range(n)``, uniform, in O(k) time: Fisher-Yates shuffling of a sparse array.

    Raises ValueError unless 0 <= k <= n.
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
    """A NumPy generator keyed by ``base``, for draws from distributions (Dirichlet, normal)."""
    return np.random.Generator(np.random.Philox(key=base))


def legacy(seed: int) -> np.random.RandomState:
    """The stream of ``np.random.seed(seed)``, bit for bit, with ``seed`` in 0..2^32 - 1.

    For synthetic data whose authors published a script with its seed.
    """
    return np.random.RandomState(seed)


def words(base: np.ndarray | int) -> Tensor:
    """64-bit keys (...) as pairs of 32-bit words (..., 2) int32: the form in which tensor operations take a key."""
    if not isinstance(base, np.ndarray):
        return torch.from_numpy(np.array([base], np.uint64).view(np.int32))
    return torch.from_numpy(np.ascontiguousarray(base)[..., None].view(np.int32))


def _hash32(x: Tensor) -> Tensor:
    """The hash lowbias32 (C. Wellons, "Prospecting for hash functions", 2018); modifies ``x`` in place."""
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15).bitwise_and_(0x1FFFF)
    x *= -0x7B935975  # 0x846CA68B as a signed word
    x ^= (x >> 16).bitwise_and_(0xFFFF)
    return x


_first_row = 0


@contextmanager
def rows_from(first: int) -> Iterator[None]:
    """While open, ``uniform`` and ``keep_mask`` draw for a part of a batch: for its samples from ``first`` on.

    The first axis of what is drawn is that of samples; what is drawn are these rows of what the whole batch gets.
    """
    global _first_row
    before, _first_row = _first_row, first
    try:
        yield
    finally:
        _first_row = before


def bits(pair: Tensor, n: int, start: int = 0) -> Tensor:
    """``n`` random 32-bit words (n,) int32 from a key's words (2,); element i depends on the key and i only.

    ``start`` : the first i.
    """
    counter = torch.arange(start, start + n, dtype=torch.int32, device=pair.device)
    return _hash32((counter + pair[0]) * (pair[1] | 1))


def _before(shape: tuple[int, ...]) -> int:
    """How many elements of the whole batch lie before the rows that are drawn (see ``rows_from``)."""
    return _first_row * math.prod(shape[1:]) if _first_row else 0


def uniform(pair: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform numbers in [0, 1) with 24 bits, of ``shape``, from a key's words (2,)."""
    n = math.prod(shape)
    return ((bits(pair, n, _before(shape)) & 0xFFFFFF).to(dtype) / (1 << 24)).reshape(shape)


def keep_mask(pair: Tensor, shape: tuple[int, ...], p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """A random mask: 1 with probability ``1 - p``, else 0; a tensor of ``shape`` from a key's words (2,).

    ``dtype`` is a floating-point type of at least 32 bits. Where ``p`` is a multiple of 1/256, a 32-bit word gives four
    elements, and the probability is exact; otherwise a word gives two, and the probability is rounded to 2^-16.
    """
    n, per = math.prod(shape), 4 if (p * 256).is_integer() else 2
    values = 1 << (32 // per)
    word, skip = divmod(_before(shape), per)
    parts = _signed_parts(bits(pair, -(-(n + skip) // per), word), per)
    least = round(p * values) - values // 2
    # For whole numbers this is x >= least; comparing to booleans and converting them would be slower.
    return parts[skip : skip + n].to(dtype).sub_(least - 1).clamp(0, 1).reshape(shape)


def _signed_parts(x: Tensor, per: int) -> Tensor:
    """The words of x (n,) int32 as ``per`` smaller signed numbers each, the lowest bits first: (n * per,)."""
    if HAS_WRAPPED_CHECK and sys.byteorder == "little" and not is_functorch_wrapped_tensor(x):
        return x.view(torch.int8 if per == 4 else torch.int16)
    # the same bits by shifts, under vmap (older versions of torch lack this view there) or where vmap is not detectable
    width = 32 // per
    return torch.stack([x << (32 - width * (i + 1)) >> (32 - width) for i in range(per)], -1).flatten()


def fold(pair: Tensor, *numbers: int) -> Tensor:
    """The words of sub-keys, (2,) for one number or (n, 2) for several.

    Used where one training step needs several draws (the masks of its dropout layers, a crop).
    """
    return _hash32(pair + _steps(numbers, pair.device))


@cache
def _steps(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """The words that ``fold`` adds for its numbers: (2,) for one number, (n, 2) for several.

    They are cached because a GPU waits for every copy from the host, and because CUDA graphs read these same tensors.
    Inside ``torch.func.grad`` a new tensor belongs to that call, and torch fails where a later call reads it; so these
    are created outside of all transforms.
    """
    with _outside_transforms():
        steps = torch.tensor([(number, -1 - number) for number in numbers], dtype=torch.int32, device=device)
        return steps[0] if len(numbers) == 1 else steps


def key_globals(base: int) -> None:
    """Seed the global generators of ``random``, NumPy and torch with the key ``base``."""
    random.seed(base)
    np.random.seed(base & 0xFFFFFFFF)
    # torch.manual_seed would query every kind of device first, which takes 200 microseconds.
    torch.default_generator.manual_seed(base & (_MASK >> 1))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(base & (_MASK >> 1))


_spare: list[np.random.MT19937] = []
"""NumPy generators that are free for use by ``kept_globals``.

Replacing NumPy's global generator takes 0.001 ms; saving and restoring its state would take 0.09 ms.
"""


@contextmanager
def kept_globals() -> Iterator[None]:
    """Restore the global generators of ``random``, NumPy and torch on exit.

    One part of NumPy's state is lost: normal numbers are drawn in pairs, and the second of a pair may be buffered.
    """
    before = random.getstate(), mtrand.get_bit_generator(), torch.get_rng_state()
    own = _spare.pop() if _spare else np.random.MT19937(0)
    mtrand.set_bit_generator(own)
    try:
        yield
    finally:
        random.setstate(before[0])
        mtrand.set_bit_generator(before[1])
        torch.set_rng_state(before[2])
        _spare.append(own)


@contextmanager
def keyed_globals(base: int) -> Iterator[None]:
    """Run foreign code with the global generators of ``random``, NumPy and torch seeded with the key ``base``.

    The generators are restored on exit, as ``kept_globals`` does.
    """
    with kept_globals():
        key_globals(base)
        yield
