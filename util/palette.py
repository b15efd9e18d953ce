"""The colours of palette PNGs."""
from __future__ import annotations

from pathlib import Path

from PIL import Image


def davis_palette() -> bytes:
    """The palette of DAVIS's masks, 256 RGB triples.

    It is PASCAL VOC's: colour i has the bits of i, from the lowest, dealt in turn to red, green and blue,
    each filled from its highest bit. 0 is black, 1 dark red, 2 dark green and so on.
    """
    colours = bytearray()
    for index in range(256):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours += bytes(rgb)
    return bytes(colours)


def palette_of(path: Path) -> bytes | None:
    """The palette of an image file, padded to 256 colours; None if it has none or cannot be read."""
    try:
        with Image.open(path) as image:
            palette = image.getpalette()
    except OSError:
        return None
    return bytes(palette).ljust(768, b"\0")[:768] if palette else None
