"""Output folders of propagated videos: what may be replaced, and the settings that masks were computed with."""
from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from dataset.video import Video
from util.cli import InputError
from util.files import LITTER, TEMPORARY, write_atomic

OVERLAY_FILES = ("overlay.mp4", "contact_sheet.png")


def check_replaceable(folder: Path, names: Collection[str], overwrite: bool) -> None:
    """See that a video's masks may be put there: nothing is there yet, or only its masks, to be overwritten.

    Args:
        names: of the video's frames.

    Raises:
        InputError: something else would be lost, or masks are there and are not to be overwritten.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, or a link to nowhere; name another --output")
    ours = {f"{name}.png" for name in names} | {f"overlay/{name}" for name in OVERLAY_FILES}
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.name not in LITTER]
    found = [path.as_posix() for path in paths if path.parts[0] != TEMPORARY
             and (path != Path("overlay") or (folder / path).is_symlink())]
    foreign = sorted(set(found) - ours)
    if foreign:
        raise InputError(f"{folder}: holds something that is no mask of this clip ({foreign[0]}); "
                         f"name another --output")
    if found and not overwrite:
        raise InputError(f"{folder}: holds masks already; name another --output, or --overwrite them")


def check_output_is_not_input(folder: Path, video: Video) -> None:
    """Refuse to write a video's masks over what it is made of.

    Raises:
        InputError: the folder is that of its frames or masks, or one around it.
    """
    sources = {*video.frames.files(), *video.masks.values(), *([video.ground_truth / "x"] if video.ground_truth else [])}
    target = folder.resolve()
    for source in {path.resolve().parent for path in sources}:
        if target == source or target in source.parents:
            raise InputError(f"{folder}: holds frames or masks that are read; name another --output")


class RunSettings:
    """What each finished video's masks were made with, in ``<output>/.settings``, so that no two kinds are mixed."""

    def __init__(self, output: Path, settings: dict):
        self.output, self.settings = output, settings

    def check(self, video: str) -> None:
        """See that a finished video's masks are of these settings (or of unknown ones).

        Raises:
            InputError: they are of others.
        """
        try:
            before = dict(json.loads(self._path(video).read_text()))
        except (OSError, ValueError, TypeError):
            return
        for name, value in self.settings.items():
            if before.get(name, "unknown") != value:
                raise InputError(f"{self.output / video}: was made with other settings ({name} was "
                                 f"{before.get(name, 'unknown')}, is {value}); name another --output, or --overwrite")

    def forget(self, video: str) -> None:
        """Before a video is replaced."""
        self._path(video).unlink(missing_ok=True)

    def write(self, video: str) -> None:
        """After a video was finished."""
        self._path(video).parent.mkdir(exist_ok=True)
        write_atomic(self._path(video), json.dumps(self.settings, indent=1))

    def _path(self, video: str) -> Path:
        return self.output / ".settings" / f"{video}.json"
