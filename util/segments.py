"""The segments of BL30K: each is put among the others, and remembered."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from util.archive import unpack
from util.download import fetch
from util.drive import Drive
from util.files import atomic_folder, write_atomic
from util.members import Damaged
from util.plan import bytes_to_fetch
from util.provide import putting_aside
from util.sources import FRAMES, SEGMENT_BYTES, SEGMENTS


def archive_of(segment: str, root: Path) -> Path:
    """Where a segment's archive is put."""
    return root / "BL30K" / f"BL30K_{segment}.tar"


def is_finished(segment: str, root: Path) -> bool:
    """Whether a segment was put among the others by an earlier run."""
    return _note(segment, root).exists()


def provide(segment: str, root: Path, drive: Drive) -> None:
    """Download, unpack, put among the others, remove the archive.

    Raises:
        InputError: it cannot be done; a damaged archive is put aside.
    """
    archive = archive_of(segment, root)
    unpacked = _unpacked(archive)
    if not unpacked.is_dir():              # else a run was stopped while it moved videos from there
        if not archive.is_file():
            fetch(drive, SEGMENTS[segment], archive)
        with putting_aside(archive), atomic_folder(unpacked) as new:
            unpack(archive, new)
            found = {path.name for path in find_all(new)}
            if found != set(FRAMES):
                raise Damaged(f"{archive.name}: there is no {' and no '.join(sorted(set(FRAMES) - found))} in it")
    for source in find_all(unpacked):
        merge(source, archive.parent / source.name)
    archive.unlink(missing_ok=True)
    write_atomic(_note(segment, root), "")
    shutil.rmtree(unpacked)


def bytes_left(segment: str, root: Path, drive: Drive) -> tuple[int, int]:
    """A segment's size, or about, and how much of it is here; nothing if it only has to be put in place.

    Raises:
        InputError: there is no connection.
    """
    archive = archive_of(segment, root)
    if _unpacked(archive).is_dir():
        return 0, 0
    size, here = bytes_to_fetch(drive, SEGMENTS[segment], archive)
    return SEGMENT_BYTES if size is None else size, here


def find_all(tree: Path) -> list[Path]:
    """The outermost folders of frames and of masks, wherever they are."""
    found = []
    for place, folders, _ in os.walk(tree):
        found += [Path(place) / name for name in folders if name in FRAMES]
        folders[:] = [name for name in folders if name not in FRAMES]
    return found


def merge(source: Path, target: Path) -> None:
    """Move a folder's content into another, which may hold some of it already."""
    if source.is_dir() and target.is_dir():
        for path in sorted(source.iterdir()):
            merge(path, target / path.name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _unpacked(archive: Path) -> Path:
    return archive.with_suffix(".unpacked")


def _note(segment: str, root: Path) -> Path:
    return root / "BL30K" / f".BL30K_{segment}.finished"
