"""Making a data set smaller: every picture below a folder, to a shorter side, into another folder."""
from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from util.cli import InputError
from util.files import prepare_folder
from util.space import FULL

PHOTOGRAPHS, MASKS = {".jpg", ".jpeg"}, {".png"}
QUALITY = 95


def resize_image(source: Path, target: Path, shorter: int, method: Image.Resampling) -> None:
    """Write one picture with its shorter side of so many pixels, at once; a smaller one is copied as it is.

    Args:
        source: a photograph, or a mask (.png): that is resized to the nearest pixel and keeps its palette.
        target: a file of the same kind.
        shorter: pixels.
        method: of photographs.

    Raises:
        InputError: the file cannot be read.
        OSError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial_file = target.with_name(f".{target.name}.partial")
    is_mask = source.suffix.lower() in MASKS
    try:
        with Image.open(source) as image:
            scale = shorter / min(image.size)
            if scale >= 1:
                image.load()                     # or one that cannot be read would be copied
                shutil.copyfile(source, partial_file)
            else:
                size = tuple(round(side * scale) for side in image.size)
                if is_mask:
                    image.resize(size, Image.Resampling.NEAREST).save(partial_file, format="PNG")
                else:
                    upright = ImageOps.exif_transpose(image).convert("RGB")
                    size = size if upright.size == image.size else size[::-1]
                    upright.resize(size, method).save(partial_file, format="JPEG", quality=QUALITY)
        partial_file.replace(target)
    except OSError as error:
        partial_file.unlink(missing_ok=True)
        if error.errno in FULL:                  # no fault of the picture, and no other would fare better
            message = f"{os.strerror(error.errno)}; free some and run this again"
            raise OSError(error.errno, message, str(target)) from None
        raise InputError(f"{source}: cannot be resized ({error})") from None


def images_below(folder: Path) -> list[Path]:
    """The photographs and masks below a folder, by their paths in it.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(path.relative_to(folder) for path in folder.rglob("*")
                   if path.suffix.lower() in PHOTOGRAPHS | MASKS and path.is_file() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder}: no .jpg or .png below it")
    return found


def resize_folder(source: Path, target: Path, shorter: int, method: Image.Resampling, workers: int,
                  progress: Callable[[int], Callable[[], None]]) -> list[str]:
    """Resize all pictures below ``source`` into the same places below ``target``; those that are there are passed over.

    Args:
        source, target: folders.
        shorter, method: see `resize_image`.
        workers: processes.
        progress: called with the number of pictures to do; what it returns is called after each.

    Returns:
        a message for each picture that could not be resized.

    Raises:
        InputError: there is nothing to do it with, or both are one folder.
    """
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise InputError(f"{target}: is in the folder to be resized; name another to write to")
    names = [name for name in images_below(source) if not (target / name).exists()]
    prepare_folder(target)
    done, failures = progress(len(names)), []
    with ProcessPoolExecutor(workers) as pool:
        try:
            for job in as_completed([pool.submit(partial(resize_image, source / name, target / name, shorter, method))
                                     for name in names]):
                if isinstance(job.exception(), InputError):
                    failures.append(str(job.exception()))
                else:
                    job.result()
                done()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(failures)
