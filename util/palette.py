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


def palette_of(*paths: Path) -> bytes | None:
    """The palette of image files as 256 RGB triples; None if no file has a palette that can be read.

    A colour that the first palette lacks, or has equal to that of the background, comes from the next ones, and at last
    from the palette of DAVIS.
    """
    palettes = [palette for path in paths if (palette := _read_palette(path))]
    if not palettes:
        return None
    palettes.append(davis_palette())
    result = background = palettes[0][:3]
    for start in range(3, 768, 3):
        colours = [palette[start:start + 3] for palette in palettes]
        result += next((colour for colour in colours if colour not in (b"", background)), colours[-1])
    return result


def _read_palette(path: Path) -> bytes | None:
    try:
        with Image.open(path) as image:
            palette = image.getpalette()
    except OSError:
        return None
    return bytes(palette) if palette else None
