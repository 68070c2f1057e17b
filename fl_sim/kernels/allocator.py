"""Big tensors stay on glibc's heap between steps. No paper.

By default glibc maps every large allocation anew and gives it back when freed; a training step that allocates the same
gradients again and again then pays a page fault every 4 KiB (1500 to 2600 a step of a CNN with 1.6 million parameters).
The price is that a process keeps the most memory that it has used. Whoever sets glibc's own variables (MALLOC_*_, GLIBC_TUNABLES)
decides instead.
"""

import ctypes
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of ``mallopt`` in malloc.h."""


@cache
def keep_large_buffers() -> None:
    """Tell this process's glibc, once; does nothing elsewhere."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(
            _MMAP_THRESHOLD, 1 << 25
        )  # the most that older versions take
        libc.mallopt(_TRIM_THRESHOLD, -1)
