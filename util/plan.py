"""Before and around several downloads: how much it is, whether to go on, and one after the other."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from util.cli import InputError, pluralize, warn
from util.download import Withheld, part_of
from util.drive import Broken, Drive
from util.space import readable


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
        raise InputError(f"{pluralize(len(withheld), 'archive')} could not be had, see above: {', '.join(withheld)}")


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
