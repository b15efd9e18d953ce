"""Frames are padded with zeros to multiples of the stride of the features that are matched."""
from __future__ import annotations

from torch import Tensor

STRIDE = 16


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Zeros to add (left, right, top, bottom) to reach multiples of 16, an odd one on the right or bottom."""
    down, across = -height % STRIDE, -width % STRIDE
    return across // 2, across - across // 2, down // 2, down - down // 2


def crop(padded: Tensor, height: int, width: int) -> Tensor:
    """(..., H', W') that was padded by `padding` -> (..., height, width)."""
    left, _, top, _ = padding(height, width)
    return padded[..., top:top + height, left:left + width]
