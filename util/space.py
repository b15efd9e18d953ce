"""Room on the disk: whether something will fit, and what to say when it did not."""
from __future__ import annotations

import errno
import os
import shutil
from io import FileIO
from pathlib import Path

from util.cli import InputError

FULL = {errno.ENOSPC, errno.EDQUOT}
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def readable(size: float) -> str:
    """1500000: 1.5 MB."""
    power = 0
    while size >= 1000 and power < len(UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.1f} {UNITS[power]}" if power and size < 100 else f"{size:.0f} {UNITS[power]}"


def free_space(folder: Path) -> int:
    """Bytes free where the folder is, or will be."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, needed: int, what: str) -> None:
    """See that so many bytes fit into a folder.

    Args:
        what: that needs them.

    Raises:
        InputError: they do not.
    """
    free = free_space(folder)
    if needed > free:
        raise InputError(f"{folder}: {what} needs {readable(needed)} and {readable(free)} are free; "
                         f"free {readable(needed - free)} more")


def write_all(file: FileIO, data: bytes) -> None:
    """Write to an unbuffered file, so that a full disk shows here and not when the file is closed.

    Raises:
        OSError: it cannot be written; as much as fitted is in the file.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest):]


def say_full(error: OSError, folder: Path, missing: int | None, what: str) -> InputError | OSError:
    """What to raise for an error of writing: one line with what is missing if the disk is full, else the error itself.

    Args:
        missing: bytes that were still to be written; None: nobody knows.
        what: happens when the script is run again.
    """
    if error.errno not in FULL:
        return error if error.filename else OSError(error.errno, os.strerror(error.errno or 0), str(folder))
    amount = "" if missing is None else f", {readable(missing)} more are needed"
    return InputError(f"{folder}: the disk is full{amount}; free some and run this again: {what}")
