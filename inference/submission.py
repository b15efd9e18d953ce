"""Zip files of predicted masks for the servers of the benchmarks."""
from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset.image_io import read_image, write_mask
from dataset.video import Video
from util.cli import InputError, pluralize
from util.files import atomic_file, prepare_folder

NAMED = 5           # masks in a message


def check_zip_path(path: Path) -> None:
    """Raise InputError if the zip file cannot be written there, or would replace a file that is none."""
    if path.exists() and not (path.is_file() and zipfile.is_zipfile(path)):
        raise InputError(f"{path}: exists and is not a zip file; choose another --zip")
    prepare_folder(path.absolute().parent)


def check_masks(video: Video, folder: Path) -> list[str]:
    """The problems of a video's masks ``folder/<frame>.png`` as a submission, one line for each kind.

    Each requested frame must have a palette PNG of the size of the frames, with no other objects than the input masks.
    """
    height, width = next(video.frames.read([0], workers=0)).shape[:2]
    known = {0}.union(*(np.unique(video.labels(path)).tolist() for path in video.masks.values()))
    problems: dict[str, list[str]] = {}
    for name in video.requested_names():
        try:
            image = read_image(folder / f"{name}.png")
        except InputError:
            problems.setdefault("missing or damaged", []).append(name)
            continue
        unknown = sorted(set(np.unique(image).tolist()) - known)
        if image.size != (width, height):
            problems.setdefault(f"not of the frames' size {width}x{height}", []).append(name)
        elif image.mode != "P":
            problems.setdefault("without a palette", []).append(name)
        elif unknown:
            problems.setdefault("with objects that are in no input mask", []).append(f"{name} (object {unknown[0]})")
    return [f"{folder}: {pluralize(len(names), 'mask')} {kind}: {', '.join(names[:NAMED])}"
            f"{', ...' if len(names) > NAMED else ''}" for kind, names in problems.items()]


def write_submission(path: Path, videos: Sequence[Video], output: Path, folder: str) -> list[str]:
    """Write the masks ``output/<video>/<frame>.png`` to a zip file as ``folder/<video>/<frame>.png``.

    They have the values of the input masks. Other files are left out, and so are frames that are not requested.

    Returns:
        the problems of all videos, see `check_masks`. If there are any, nothing is written.
    """
    problems = [problem for video in videos for problem in check_masks(video, output / video.name)]
    if not any(video.requested_names() for video in videos):
        problems.append(f"{path}: no frame is requested, so there is nothing to submit")
    if not problems:
        with atomic_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            for video in videos:
                for name in video.requested_names():
                    image, png = read_image(output / video.name / f"{name}.png"), io.BytesIO()
                    write_mask(png, video.input_values(np.asarray(image)), bytes(image.getpalette()))
                    entry = zipfile.ZipInfo("/".join(filter(None, (folder, video.name, f"{name}.png"))))
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, png.getvalue())
    return problems
