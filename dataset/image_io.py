"""Reading and writing of frames and masks; invalid files raise InputError, which names the file."""
from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from warnings import filterwarnings, simplefilter

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from util.cli import InputError, warn
from util.opencv import cv2
from util.palette import davis_palette

MAX_OBJECTS = 64        # of one mask: each object costs memory and time
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
EXIF_ROTATIONS = dict(enumerate((
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90), 2))

simplefilter("ignore", Image.DecompressionBombWarning)      # large frames are valid; the hard limit stays
filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")    # on damaged EXIF data, which `read_frame` ignores


def read_image(path: Path) -> Image.Image:
    """The fully decoded image."""
    check_regular_file(path)
    try:
        image = Image.open(path)
        image.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return image


def check_regular_file(path: Path | str) -> None:
    """Raise InputError unless the file exists and can be read without waiting, unlike a FIFO."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")


def read_frame(path: Path | str, exif_rotation: bool = False) -> np.ndarray:
    """The image as (H, W, 3) uint8 RGB, rotated as its EXIF data says on request: the published loaders ignore it."""
    image = read_image(path)
    if exif_rotation:
        with suppress(OSError, SyntaxError, ValueError, TypeError, AttributeError, struct.error):   # damaged EXIF data
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            # `ImageOps.exif_transpose` also rewrites the other tags, which fails if one of them has a wrong type.
            image = image.transpose(EXIF_ROTATIONS[orientation]) if orientation in EXIF_ROTATIONS else image
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{path}: has more than 8 bits per channel; save it with 8 bits")
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path | str, show_warnings: bool = False, binary: bool = False) -> np.ndarray:
    """The mask as (H, W) integers: 0 is the background, every other value one object.

    Palette and grey images contain the labels themselves. An RGB image is a mask if it is grey, or if all its colours
    are of the DAVIS palette (as when an image editor converted a palette mask). Pixels with alpha 0 are background.
    ``binary``: all objects have the label 255.
    """
    image, warnings = read_image(path), []
    if image.format == "JPEG":
        raise InputError(f"{path}: JPEG does not preserve labels; save the mask as a palette or grey PNG")
    if image.mode in ("RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"):
        colours = np.array(image.convert("RGB"))
        if "A" in image.mode:
            alpha = np.asarray(image.getchannel("A"))
            if (colours == colours[0, 0]).all() and np.ptp(alpha):
                raise InputError(f"{path}: the objects are only in the alpha channel; save the mask as a palette or "
                                 f"grey PNG with one value per object and 0 for the background")
            hidden = (alpha == 0) & colours.any(-1)
            if hidden.any():
                warnings.append(f"{path}: {hidden.sum()} pixels with alpha 0 are treated as background")
            colours[hidden] = 0
        mask = colours.any(-1) if binary else _labels_of_colours(path, colours)
    else:
        mask = np.asarray(image)
        if mask.ndim != 2 or mask.dtype.kind == "f":
            raise InputError(f"{path}: not a mask (mode {image.mode}); save it as a palette or 8-bit grey PNG")
    if binary:
        mask = np.where(mask != 0, 255, 0)
    objects = np.setdiff1d(mask, 0)
    if len(objects) > MAX_OBJECTS:
        raise InputError(f"{path}: has {len(objects)} objects, the limit is {MAX_OBJECTS}; if this is a photo or a "
                         f"mask with smooth edges, save it without smoothing as a palette PNG, or threshold it")
    invalid = objects[(objects < 0) | (objects > 255)]
    if len(invalid):
        raise InputError(f"{path}: has the label {invalid[-1]}; labels must be from 1 to 255")
    edges = smooth_edges(mask, image.mode == "P")
    if edges:
        message = (f"{path}: {len(edges)} of its {len(objects)} labels (such as {edges[0]}) only form thin lines, as "
                   f"smooth edges do; save the mask without smoothing (anti-aliasing), or threshold it")
        if image.mode != "P" and len(objects) > 3:
            raise InputError(message)
        warnings.append(f"{message}, unless each label is an object")
    for message in warnings if show_warnings else []:
        warn(message)
    return mask.astype(np.int64)


def _labels_of_colours(path: Path, rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) colours -> (H, W) labels: grey values, or indices into the DAVIS palette."""
    if (rgb == rgb[..., :1]).all():
        return rgb[..., 0]
    reference = Image.new("P", (1, 1))
    reference.putpalette(davis_palette())
    labels = np.asarray(Image.fromarray(rgb).quantize(palette=reference, dither=Image.Dither.NONE))
    unknown = rgb[(np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)[labels] != rgb).any(-1)]
    if len(unknown):
        raise InputError(f"{path}: has colours that are not in the DAVIS palette (such as #{bytes(unknown[0]).hex()}); "
                         f"save the mask as a palette or grey PNG with one value per object and 0 for the background")
    return labels


def smooth_edges(mask: np.ndarray, palette: bool) -> list[int]:
    """The labels of a mask (H, W) that are probably smoothed edges of other objects.

    Of four labels or more: those that fill no block of 3x3 pixels, if they are the majority. Of fewer labels in a grey
    mask: those of them whose pixels mostly lie between a lower and a higher value.
    """
    objects, mask = np.setdiff1d(mask, 0), mask.astype(np.uint8)
    if palette and len(objects) < 4:
        return []
    block = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(mask, block), cv2.dilate(mask, block)
    solid = (low == high)[1:-1, 1:-1]
    thin = np.setdiff1d(objects, mask[1:-1, 1:-1][solid]).tolist()
    if len(objects) > 3:
        return thin if 2 * len(thin) > len(objects) else []
    between = (low < mask) & (mask < high)
    return [label for label in thin if between[mask == label].mean() > 0.5]


def fit_mask(path: Path, mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask resized (nearest) to (height, width), at the same aspect ratio; the same array if it has that size."""
    if mask.shape == (height, width):
        return mask
    rows, columns = mask.shape
    if abs(rows * width / (columns * height) - 1) > 0.01:
        raise InputError(f"{path}: the mask is {columns}x{rows} pixels, its frame {width}x{height}")
    y = ((np.arange(height) + 0.5) * rows / height).astype(int)
    x = ((np.arange(width) + 0.5) * columns / width).astype(int)
    return mask[y[:, None], x]


def write_mask(path: Path | BinaryIO, mask: np.ndarray, palette: bytes | None, info: PngInfo | None = None) -> None:
    """Write (H, W) uint8 labels as a palette PNG, or without a palette as a grey one, with ``info`` as its text."""
    image = Image.fromarray(mask)
    if palette is not None:
        image.putpalette(palette)
    image.save(path, format="PNG", pnginfo=info)
