"""Colours of palette PNGs."""
from __future__ import annotations

from pathlib import Path

from PIL import Image


def davis_palette() -> bytes:
    """The palette of DAVIS masks: 256 RGB triples (black, dark red, dark green, ...), as in PASCAL VOC.

    The bits of the index, from the lowest, go to red, green and blue in turn, and fill each from its highest bit.
    """
    colours = bytearray()
    for index in range(256):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours += bytes(rgb)
    return bytes(colours)


def palette_of(path: Path) -> bytes | None:
    """The palette of an image file, completed by that of DAVIS to 256 RGB triples; None if there is none to read."""
    try:
        with Image.open(path) as image:
            palette = image.getpalette()
    except OSError:
        return None
    return bytes(palette) + davis_palette()[len(palette):] if palette else None
