"""A partition of many clients as a table that can be looked at: groups of clients that are alike.

Legend: C clients, K labels, G groups.
"""

import numpy as np


def grouped_shares(counts: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean share of each label in groups of clients, which are sorted by their most frequent label and its share.

    Parameters
    ----------
    counts : array (C, K)
        Samples of each label at each client.
    most : int
        Most groups; they have equal sizes, up to one client.

    Returns
    -------
    tuple of (array (K, G), array (G + 1))
        The shares, and after how many clients each group begins.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    order = np.lexsort((-shares.max(1), shares.argmax(1)))
    groups = np.array_split(shares[order], min(most, len(counts)))
    return np.stack([group.mean(0) for group in groups]).T, np.cumsum([0, *map(len, groups)])
