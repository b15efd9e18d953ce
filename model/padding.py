"""Zero padding of frames to multiples of 16, the stride of the matched features."""
from __future__ import annotations

from torch import Tensor

from model.defaults import STRIDE


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the padding (left, right, top, bottom) to multiples of 16; the odd pixel goes right or bottom."""
    down, across = -height % STRIDE, -width % STRIDE
    return across // 2, across - across // 2, down // 2, down - down // 2


def crop(padded: Tensor, height: int, width: int) -> Tensor:
    """Undo `padding`: (..., H', W') -> (..., height, width)."""
    left, _, top, _ = padding(height, width)
    return padded[..., top:top + height, left:left + width]


def location_of_pixel(x: float, y: float, height: int, width: int) -> tuple[int, int]:
    """Return the stride-16 location (row, column) of a pixel; pixels outside of the frame are clamped to it."""
    left, _, top, _ = padding(height, width)
    return (int(min(max(y, 0), height - 1)) + top) // STRIDE, (int(min(max(x, 0), width - 1)) + left) // STRIDE


def center_of_location(row: int, column: int, height: int, width: int) -> tuple[int, int]:
    """Return the pixel (x, y) at the centre of a stride-16 location, clamped to the frame."""
    left, _, top, _ = padding(height, width)
    x, y = STRIDE * column + STRIDE // 2 - left, STRIDE * row + STRIDE // 2 - top
    return min(max(x, 0), width - 1), min(max(y, 0), height - 1)
