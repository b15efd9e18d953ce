"""Reading frames and masks, strictly: a file that cannot be trusted ends in one line that names it."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from util.cli import InputError
from util.palette import davis_palette

# Masks with more objects than this are taken for pictures saved as masks: each object costs memory and time.
MAX_OBJECTS = 64
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}


def _open(path: Path) -> Image.Image:
    """The fully decoded image."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read, perhaps cut off ({error})") from None
    return image


def read_frame(path: Path) -> np.ndarray:
    """The picture as (H, W, 3) uint8 RGB.

    Raises:
        InputError: unreadable, cut off, or with more than 8 bits a channel.
    """
    image = ImageOps.exif_transpose(_open(path))       # as viewers show it, and as masks are painted
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{path}: has more than 8 bits a channel; save it as 8-bit")
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """The mask as (H, W) integers: 0 is background, every other value one object.

    Palette and grey images hold the values themselves. An RGB image counts as a mask if it is grey, or painted
    in colours of the DAVIS palette, as such a mask looks after it passed through a picture editor.

    Raises:
        InputError: unreadable, cut off, another kind of picture, or more values than there can be objects.
    """
    image = _open(path)
    if image.format == "JPEG":
        raise InputError(f"{path}: a JPEG does not keep the values of a mask; save it as a palette or grey PNG")
    if image.mode in ("RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"):
        colours = np.asarray(image.convert("RGB"))
        if "A" in image.mode and (colours == colours[0, 0]).all() and len(set(image.getchannel("A").getextrema())) > 1:
            raise InputError(f"{path}: the objects are in its transparency only; save the mask as a palette or grey "
                             f"PNG with one value per object, 0 for the background")
        values = _labels_of_colours(path, colours)
    else:
        values = np.asarray(image)
        if values.ndim != 2 or values.dtype.kind == "f":
            raise InputError(f"{path}: not a mask (mode {image.mode}); save it as a palette or 8-bit grey PNG")
    values = values.astype(np.int64)
    present = np.unique(values)
    if len(present) - (0 in present) > MAX_OBJECTS:
        raise InputError(
            f"{path}: holds {len(present)} different values, where a mask has one value per object and 0 for the "
            f"background; it looks like a picture or a mask with smooth edges: save it without smoothing as a "
            f"palette PNG, or threshold it")
    if present.max(initial=0) > 255 or present.min(initial=0) < 0:
        raise InputError(f"{path}: holds the value {present.max()}; objects are numbered 1 to 255")
    if image.mode != "P" and has_smooth_edges(values):
        raise InputError(f"{path}: most of its {len(present) - 1} values are thin lines only, as in a mask with smooth "
                         f"edges; save it without smoothing, or threshold it")
    return values


def _labels_of_colours(path: Path, rgb: np.ndarray) -> np.ndarray:
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    places = np.array([1 << 16, 1 << 8, 1])
    codes = rgb @ places
    colours, inverse = np.unique(codes, return_inverse=True)
    palette = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)
    index_of = {colour: index for index, colour in enumerate((palette @ places).tolist())}
    unknown = [colour for colour in colours.tolist() if colour not in index_of]
    if unknown:
        raise InputError(
            f"{path}: an RGB picture of {len(colours)} colours, {len(unknown)} of which are not in the DAVIS palette "
            f"(such as #{unknown[0]:06x}); save the mask as a palette or grey PNG with one value per object, "
            f"0 for the background")
    return np.array([index_of[colour] for colour in colours.tolist()])[inverse].reshape(codes.shape)


def has_smooth_edges(mask: np.ndarray) -> bool:
    """Whether most of the mask's values are thin lines only, nowhere filling a block of 3x3 as an object does."""
    objects = np.unique(mask[mask != 0])
    if len(objects) < 4:
        return False
    centre = mask[1:-1, 1:-1]
    same = np.ones(centre.shape, bool)
    for dy in range(3):
        for dx in range(3):
            same &= mask[dy:dy + centre.shape[0], dx:dx + centre.shape[1]] == centre
    return 2 * len(np.setdiff1d(objects, centre[same])) > len(objects)


def fit_mask(path: Path, mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at its frame's size; one of nearly the same shape (within 1 %) is resized, nearest.

    Raises:
        InputError: the shapes differ by more.
    """
    if mask.shape == (height, width):
        return mask
    rows, columns = mask.shape
    if abs(rows * width / (columns * height) - 1) > 0.01:
        raise InputError(f"{path}: the mask is {columns}x{rows} pixels, its frame {width}x{height}")
    y = ((np.arange(height) + 0.5) * rows / height).astype(int)
    x = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return mask[y[:, None], x]


def write_mask(path: Path, mask: np.ndarray, palette: bytes | None) -> None:
    """Write (H, W) uint8 labels as a palette PNG, or as a grey one without a palette."""
    image = Image.fromarray(mask)
    if palette is not None:
        image.putpalette(palette)
    try:
        image.save(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
