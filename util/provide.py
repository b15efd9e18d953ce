"""From an archive that can be downloaded to a folder of data in its place."""
from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from util.archive import Damaged, unpack
from util.download import Withheld, fetch, part_of
from util.drive import Broken, Drive
from util.errors import InputError, counted, warn
from util.output import LITTER, whole_folder
from util.sources import Part
from util.space import readable


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
    held = {path.name for path in folder.iterdir() if path.name[0] != "." and path.name not in LITTER}
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
    with putting_aside(archive), whole_folder(folder) as new:
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


def bytes_to_fetch(drive: Drive, drive_id: str, archive: Path) -> tuple[int | None, int]:
    """An archive's size (None: the server does not say), and how much of it is here.

    Raises:
        InputError: there is no connection.
    """
    if archive.is_file():
        return archive.stat().st_size, archive.stat().st_size
    part = part_of(archive)
    try:
        return drive.size(drive_id), part.stat().st_size if part.is_file() else 0
    except Broken as error:
        raise InputError(f"{archive.name}: cannot be downloaded: {error}") from None


def amount(size: int | None, here: int) -> str:
    """What `bytes_to_fetch` found, in words."""
    return ("size unknown" if size is None else readable(size)) + (f", {readable(here)} here" if here else "")


def room_needed(sizes: Iterable[tuple[int | None, int]]) -> int:
    """Bytes that doing one archive after the other takes at least: pictures fill as much as their archive does.

    Args:
        sizes: of `bytes_to_fetch`.
    """
    unpacked, peak, total_here = 0, 0, 0
    for size, here in sizes:
        unpacked += size or here
        peak = max(peak, unpacked + (size or here))        # its archive is removed before the next comes
        total_here += here
    return max(peak - total_here, 0)


def one_after_the_other(jobs: Iterable[tuple[str, Callable[[], None]]]) -> None:
    """Do the jobs (a name, what to do); where the provider withholds a file, the others are done all the same.

    Raises:
        InputError: one failed in another way, or some were withheld, which has been said.
    """
    withheld = []
    for name, job in jobs:
        try:
            job()
        except Withheld as error:
            warn(str(error))
            withheld.append(name)
        else:
            print(f"done: {name}", flush=True)
    if withheld:
        raise InputError(f"{counted(len(withheld), 'archive')} could not be had, see above: {', '.join(withheld)}")


def confirm(yes: bool) -> None:
    """Ask whether to go on.

    Raises:
        InputError: no, or nobody is there to answer.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise InputError("nobody is there to confirm this; say --yes to download without being asked")
    try:
        answer = input("Download? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("not confirmed, nothing was downloaded")
