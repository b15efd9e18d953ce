"""Keeping the resident memory of a CPU run near what is in use."""
from __future__ import annotations

import ctypes
import os

_M_MMAP_THRESHOLD = -3      # of glibc's malloc.h


def give_memory_back() -> None:
    """Have large tensors' memory go back to the system when they are freed (glibc; nothing happens elsewhere).

    By default glibc keeps freed blocks of up to 32 MB in its heap, where the activations of different stages do not
    fit into each other's places: at 480p that held 230 MB more than was ever in use. Fresh memory for each
    tensor would cost time in page faults, so PyTorch is also asked for huge pages, with which there is no difference
    in speed. Call before the first tensor is made.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    except (OSError, TypeError, AttributeError):
        return
