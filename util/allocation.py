"""Policies of glibc's malloc for the memory of freed CPU tensors; on other systems they have no effect.

Each applies to tensors allocated after the call.
"""
from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3      # of glibc's malloc.h


def give_memory_back() -> None:
    """Return large tensors' memory to the system when they are freed, as while weights are loaded."""
    _set(_M_MMAP_THRESHOLD, 1 << 20)


def keep_memory() -> None:
    """Keep freed memory for the next tensors, since each frame or training step allocates the same sizes again.

    Page faults of fresh memory took 25 to 33 % of the time of a frame, and up to 50 % of a training step.
    """
    _set(_M_MMAP_THRESHOLD, 1 << 30)
    _set(_M_TRIM_THRESHOLD, 2 ** 31 - 1)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, TypeError, AttributeError):
        return
