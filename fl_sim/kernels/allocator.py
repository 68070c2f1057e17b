"""Settings of glibc's memory allocator: large tensors stay on the heap between training steps.

By default glibc maps every large allocation anew and returns it to the system when it is freed; a training step that
allocates the same gradients again and again then has a page fault every 4 KiB (1500 to 2600 a step of a CNN with 1.6
million parameters). The price is that a process keeps the most memory that it has used. Where the user sets glibc's own
environment variables (``MALLOC_...``, ``GLIBC_TUNABLES``), nothing is changed.
"""

import ctypes
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of parameters of ``mallopt``, with the numbers of malloc.h."""


@cache
def keep_large_buffers() -> None:
    """Let this process's glibc keep large buffers that are freed; without effect with other C libraries."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        # older versions refuse more than 32 MiB
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(_TRIM_THRESHOLD, -1)
