"""Resizing all images below a folder to a shorter side, for training."""
from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from util.cli import InputError, pluralize, warn
from util.files import prepare_folder, write_atomic
from util.parallel import run_jobs


def resize_image(source: Path, target: Path, shorter: int, method: str = "BICUBIC", enlarge: bool = True,
                 quality: int = 95) -> None:
    """Write an image with its shorter side of ``shorter`` pixels and its longer side rounded down, as published.

    Masks (.png) are resized to the nearest pixel and keep their palette. An image that has this size is copied
    unchanged, as are smaller ones without ``enlarge``.

    Args:
        method: for photographs, a name in `Image.Resampling`.
        quality: of JPEG.
    """
    buffer = BytesIO()
    try:
        with Image.open(source) as image:
            image.load()                     # even if it is only copied, it must be readable
            size = tuple(side * shorter // min(image.size) for side in image.size)
            if size == image.size or (not enlarge and min(image.size) < shorter):
                buffer.write(source.read_bytes())
            elif source.suffix.lower() == ".png":
                image.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
            else:
                resized = image.convert("RGB").resize(size, Image.Resampling[method])
                resized.save(buffer, "JPEG", quality=quality, optimize=True)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{source}: cannot be resized ({error})") from None
    write_atomic(target, buffer.getvalue())


def images_below(folder: Path) -> list[Path]:
    """The photographs and masks below a folder, as paths relative to it."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(path.relative_to(folder) for path in folder.rglob("[!.]*")
                   if path.suffix.lower() in {".jpg", ".jpeg", ".png"} and path.is_file())
    if not found:
        raise InputError(f"{folder}: no .jpg or .png below it")
    return found


def resize_folder(source: Path, target: Path, shorter: int, workers: int, method: str = "BICUBIC",
                  enlarge: bool = True) -> None:
    """Resize all images below ``source`` to the same places below ``target``, with a progress bar.

    Images that exist there are skipped. Arguments: see `resize_image`; ``workers`` are processes.

    Raises:
        InputError: ``source`` has no images, ``target`` cannot be used, or some images could not be resized.
    """
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise InputError(f"{target}: is inside the folder to resize; choose another output folder")
    names = [name for name in images_below(source) if not (target / name).exists()]
    prepare_folder(target)
    failures = run_jobs([partial(resize_image, source / name, target / name, shorter, method, enlarge)
                         for name in names], workers, "images")
    for message in sorted(map(str, failures)):
        warn(message)
    if failures:
        raise InputError(f"{pluralize(len(failures), 'image')} could not be resized, see above; the others are done")
