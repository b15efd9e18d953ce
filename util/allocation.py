"""How glibc's malloc keeps the memory of freed tensors on a CPU; elsewhere nothing here has an effect.

Either holds from its call on, for tensors made after it.
"""
from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3      # of glibc's malloc.h


def give_memory_back() -> None:
    """Have large tensors' memory go back to the system when they are freed, as while weights are loaded."""
    _set(_M_MMAP_THRESHOLD, 1 << 20)


def keep_memory() -> None:
    """Have all freed memory kept for the next tensor: frames, and steps of training, need the same again and again.

    Fresh memory for each tensor took a quarter to a third of the time of a frame and up to half of that of a training
    step, in page faults.
    """
    _set(_M_MMAP_THRESHOLD, 1 << 30)
    _set(_M_TRIM_THRESHOLD, 2 ** 31 - 1)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, TypeError, AttributeError):
        return
