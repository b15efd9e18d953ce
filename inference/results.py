"""Output folders of propagated videos: what may be replaced, and the settings the masks were computed with."""
from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

from dataset.video import Video
from util.cli import InputError
from util.files import LOCK, TEMPORARY, recover_folder, write_atomic

OVERLAY_FILES = ("overlay.mp4", "contact_sheet.png")
SYSTEM_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}


def check_replaceable(folder: Path, names: Collection[str], overwrite: bool) -> set[str]:
    """The files of an earlier run in a video's output folder, which may be replaced, by their paths in the folder.

    Args:
        folder: need not exist.
        names: of the video's frames.
        overwrite: whether the user asked to replace existing masks.

    Raises:
        InputError: the folder holds other files, or masks that are not to be overwritten.
    """
    recover_folder(folder)
    if not os.path.lexists(folder):
        return set()
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file or a broken link; choose another --output")
    ours = {f"{name}.png" for name in names} | {f"overlay/{name}" for name in OVERLAY_FILES}
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.name not in SYSTEM_FILES]
    found = {path.as_posix() for path in paths if path.parts[0] not in (TEMPORARY, LOCK)
             and (path != Path("overlay") or (folder / path).is_symlink())}
    foreign = sorted(found - ours)
    if foreign:
        raise InputError(f"{folder}: holds something that is no mask of this clip ({foreign[0]}); "
                         f"choose another --output")
    if found and not overwrite:
        raise InputError(f"{folder}: holds masks already; choose another --output, or --overwrite them")
    return found


def check_output_is_not_input(folder: Path, video: Video) -> None:
    """Check that writing masks to a folder does not overwrite the video's frames, input masks or ground truth.

    Raises:
        InputError: the folder is one of theirs, or contains it.
    """
    ground_truth = [video.ground_truth / "x"] if video.ground_truth else []
    target = Path(os.path.realpath(folder))
    for path in {*video.frames.paths, *video.masks.values(), *ground_truth}:
        source = path.resolve().parent
        if target == source or target in source.parents:
            raise InputError(f"{folder}: holds frames or masks that are read; choose another --output")


class RunSettings:
    """The settings that each finished video's masks were computed with, in ``<output>/.settings/<video>.json``.

    They keep a resumed run from mixing masks of different settings.
    """

    def __init__(self, output: Path, settings: dict):
        self.output, self.settings = output, settings

    def check(self, video: str) -> None:
        """Check that a finished video's masks were computed with these settings; passes if theirs are unknown.

        Raises:
            InputError: they were computed with other settings.
        """
        try:
            before = dict(json.loads(self._path(video).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return
        for name, value in self.settings.items():
            if before.get(name, "unknown") != value:
                raise InputError(f"{self.output / video}: was made with other settings ({name} was "
                                 f"{before.get(name, 'unknown')}, is {value}); choose another --output, or --overwrite")

    def forget(self, video: str) -> None:
        """Remove a video's settings, before its masks are replaced."""
        self._path(video).unlink(missing_ok=True)

    def write(self, video: str) -> None:
        """Store a video's settings, after its masks were written."""
        write_atomic(self._path(video), json.dumps(self.settings, indent=1))

    def _path(self, video: str) -> Path:
        return self.output / ".settings" / f"{video}.json"
