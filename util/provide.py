"""From an archive that can be downloaded to a folder of data in its place."""
from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from util.archive import unpack
from util.cli import InputError
from util.download import Withheld, fetch
from util.drive import Drive
from util.files import SYSTEM_FILES, atomic_folder
from util.members import Damaged
from util.sources import Part


def is_finished(part: Part, root: Path) -> bool:
    """Whether the part's folder is there with what belongs in it.

    Raises:
        InputError: the folder holds something else, which must not be lost.
    """
    folder = root / part.folder
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise InputError(f"{folder}: is a file, or a link to nowhere; a folder is to be made there")
        return False
    held = {path.name for path in folder.iterdir() if path.name[0] != "." and path.name not in SYSTEM_FILES}
    if held and not held.issuperset(part.holds):
        raise InputError(f"{folder}: is not empty, and lacks {', '.join(sorted(set(part.holds) - held))}; move it "
                         f"away, or finish it by hand")
    return bool(held)


def provide(part: Part, root: Path, drive: Drive) -> None:
    """Download, unpack, put in place and remove the archive.

    Raises:
        Withheld: the archive, or what the folder belongs in, cannot be had now.
        InputError: it cannot be done; a damaged archive is put aside.
    """
    folder, archive = root / part.folder, root / part.archive
    if part.named and not folder.parent.is_dir():
        raise Withheld(f"{part.folder}: waits for {folder.parent}, see above")
    if not archive.is_file():
        fetch(drive, part.drive_id, archive)
    with putting_aside(archive), atomic_folder(folder) as new:
        tree = new / ".unpacked"
        tree.mkdir()
        unpack(archive, tree)
        for path in sorted(find_folder(tree, part).iterdir()):
            path.rename(new / path.name)
        shutil.rmtree(tree)
    archive.unlink()


@contextmanager
def putting_aside(archive: Path) -> Iterator[None]:
    """If the archive turns out to be of no use, rename it, so that another run downloads it anew.

    Raises:
        InputError: that is so.
    """
    try:
        yield
    except Damaged as error:
        aside = archive.with_name(f"{archive.name}.damaged")
        archive.replace(aside)
        raise InputError(f"{error}; it is {aside} now, delete it and run this again to download another") from None


def find_folder(tree: Path, part: Part) -> Path:
    """The outermost folder in the tree that is the part.

    Raises:
        Damaged: there is none.
    """
    level = [tree]
    while level:
        for folder in level:
            if (not part.named or folder.name == part.named) and all((folder / name).is_dir() for name in part.holds):
                return folder
        level = sorted(path for folder in level for path in folder.iterdir() if path.is_dir())
    wanted = part.named or " and ".join(part.holds)
    raise Damaged(f"{Path(part.archive).name}: there is no {wanted} in it")
