"""Frames are padded with zeros to multiples of the stride of the features that are matched."""
from __future__ import annotations

from torch import Tensor

from model.defaults import STRIDE


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Zeros to add (left, right, top, bottom) to reach multiples of 16, an odd one on the right or bottom."""
    down, across = -height % STRIDE, -width % STRIDE
    return across // 2, across - across // 2, down // 2, down - down // 2


def crop(padded: Tensor, height: int, width: int) -> Tensor:
    """(..., H', W') that was padded by `padding` -> (..., height, width)."""
    left, _, top, _ = padding(height, width)
    return padded[..., top:top + height, left:left + width]


def location_of_pixel(x: float, y: float, height: int, width: int) -> tuple[int, int]:
    """The stride-16 cell (row, column) of a frame that a pixel lies in; outside counts as the nearest pixel."""
    left, _, top, _ = padding(height, width)
    return (int(min(max(y, 0), height - 1)) + top) // STRIDE, (int(min(max(x, 0), width - 1)) + left) // STRIDE


def center_of_location(row: int, column: int, height: int, width: int) -> tuple[int, int]:
    """The pixel (x, y) in the middle of a stride-16 cell, or the nearest one that is in the frame."""
    left, _, top, _ = padding(height, width)
    x, y = STRIDE * column + STRIDE // 2 - left, STRIDE * row + STRIDE // 2 - top
    return min(max(x, 0), width - 1), min(max(y, 0), height - 1)
