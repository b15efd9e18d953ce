"""Checks of the output folders of propagated videos before anything is written."""
from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from dataset.video import Video
from util.cli import InputError
from util.files import LOCK, TEMPORARY, recover_folder

OVERLAY_FILES = ("overlay.mp4", "contact_sheet.png")
CONFIDENCE_FILES = ("confidence.csv", "confidence.png")
REPORT_FILES = ("report.html", "scores.csv")
SYSTEM_FILES = {".DS_Store", ".directory", "Thumbs.db", "desktop.ini"}


def check_replaceable(folder: Path, names: Collection[str], overwrite: bool) -> set[str]:
    """The files of an earlier run in a video's output folder, by their paths in it; the only ones to replace.

    Raises InputError if the folder contains other files, or if it contains masks and ``overwrite`` is not set.
    ``names`` are those of the video's frames.
    """
    recover_folder(folder)
    if not os.path.lexists(folder):
        return set()
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file or a broken link; choose another --output")
    ours = {*(f"{name}.png" for name in names), *(f"overlay/{name}" for name in OVERLAY_FILES),
            *(f"confidence/{name}" for name in CONFIDENCE_FILES), *(f"report/{name}" for name in REPORT_FILES)}
    paths = [path for path in (path.relative_to(folder) for path in folder.rglob("*")) if not _of_the_system(path)]
    found = {path.as_posix() for path in paths if path.parts[0] not in (TEMPORARY, LOCK)
             and (path.as_posix() not in ("overlay", "confidence", "report") or (folder / path).is_symlink())}
    foreign = sorted(found - ours)
    if foreign:
        raise InputError(f"{folder}: holds something that is no mask of this clip ({foreign[0]}); "
                         f"choose another --output")
    if found and not overwrite:
        raise InputError(f"{folder}: holds masks already; choose another --output, or --overwrite them")
    return found


def _of_the_system(path: Path) -> bool:
    """Whether a file manager or a network file system has put a file beside the masks."""
    return path.name in SYSTEM_FILES or path.name.startswith(("._", ".nfs")) or "@eaDir" in path.parts


def check_output_is_not_input(folder: Path, video: Video) -> None:
    """Raise InputError if the folder has the video's frames, input masks or ground truth in it or below it."""
    sources = {path.resolve().parent for path in (*video.frames.paths, *video.masks.values())}
    if video.ground_truth:
        sources.add(video.ground_truth.resolve())
    if any(source.is_relative_to(os.path.realpath(folder)) for source in sources):
        raise InputError(f"{folder}: holds frames or masks that are read; choose another --output")
