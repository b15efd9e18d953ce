"""Policy of glibc's malloc for the memory of freed CPU tensors."""
from __future__ import annotations

import ctypes
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3      # of glibc's malloc.h


def keep_memory() -> None:
    """Keep freed memory for the next tensors, since each frame or training step allocates the same sizes again.

    Page faults of fresh memory took 25 to 33 % of the time of a frame, and up to 50 % of a training step.
    """
    with suppress(OSError, TypeError, AttributeError):      # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 ** 31 - 1)
