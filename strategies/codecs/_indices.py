"""Ascending indices in few bytes, whose number depends on how many there are, and not on which.

Two codes, of which the smaller is taken: a bitmap, and the code of Elias (1974, "Efficient storage and retrieval by
content and address of static files", JACM 21) and Fano (1971): the lower l = floor(log2(N / k)) bits of each index as
they are, the upper ones by their differences, in unary (a one for each index after as many zeros as the difference).

Legend: k indices, ascending, in 0..N-1.
"""

import numpy as np


def num_bytes(k: int, n: int) -> int:
    """Bytes of a code of k of n indices."""
    return min(-(-n // 8), _elias_fano_bytes(k, n))


def packed(indices: np.ndarray, n: int) -> np.ndarray:
    """The code (bytes,) uint8 of indices (k,)."""
    k = len(indices)
    if not k:
        return np.zeros(0, np.uint8)
    if _elias_fano_bytes(k, n) >= -(-n // 8):
        bitmap = np.zeros(n, np.uint8)
        bitmap[indices] = 1
        return np.packbits(bitmap)
    low = _low_bits(k, n)
    unary = np.zeros(k + ((n - 1) >> low), np.uint8)
    unary[(indices >> low) + np.arange(k)] = 1
    bits = ((indices[:, None] >> np.arange(low)) & 1).astype(np.uint8)
    return np.concatenate([np.packbits(unary), np.packbits(bits)])


def unpacked(code: np.ndarray, k: int, n: int) -> np.ndarray | None:
    """The indices (k,) int64 of a code (bytes,) uint8 of the right size; None where it is no code of k of n indices."""
    if not k:
        return np.zeros(0, np.int64)
    if _elias_fano_bytes(k, n) >= -(-n // 8):
        bits = np.unpackbits(code)
        indices = np.flatnonzero(bits)
        return indices if len(indices) == k and indices[-1] < n else None
    low = _low_bits(k, n)
    upper = -(-(k + ((n - 1) >> low)) // 8)
    ones = np.flatnonzero(np.unpackbits(code[:upper]))
    if len(ones) != k:
        return None
    lower = np.unpackbits(code[upper:], count=k * low).reshape(k, low).astype(np.int64)
    indices = ((ones - np.arange(k)) << low) + (lower << np.arange(low)).sum(1)
    ascending = indices[-1] < n and bool((np.diff(indices) > 0).all())
    return indices if ascending else None


def _low_bits(k: int, n: int) -> int:
    return (n // k).bit_length() - 1 if 0 < k <= n else 0


def _elias_fano_bytes(k: int, n: int) -> int:
    if not k:
        return 0
    low = _low_bits(k, n)
    return -(-(k + ((n - 1) >> low)) // 8) + -(-k * low // 8)
