"""How glibc's malloc keeps the memory of freed tensors on a CPU; elsewhere nothing here has an effect.

Call either before the first tensor is made.
"""
from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3      # of glibc's malloc.h


def give_memory_back() -> None:
    """Have large tensors' memory go back to the system when they are freed, for inference.

    By default glibc keeps freed blocks of up to 32 MB in its heap, where the activations of different stages do not
    fit into each other's places: at 480p that held 230 MB more than was ever in use. Fresh memory for each
    tensor would cost time in page faults, so PyTorch is also asked for huge pages, with which there is no difference
    in speed.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _set(_M_MMAP_THRESHOLD, 1 << 20)


def keep_memory() -> None:
    """Have all freed memory kept for the next tensor, for training, whose steps need the same again and again.

    Page faults took up to half of the time of a step of the lite network.
    """
    _set(_M_MMAP_THRESHOLD, 1 << 30)
    _set(_M_TRIM_THRESHOLD, 2 ** 31 - 1)


def _set(parameter: int, value: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(parameter, value)
    except (OSError, TypeError, AttributeError):
        return
