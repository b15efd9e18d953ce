"""Downloads that can be stopped at any time and go on later; the file appears when it is whole."""
from __future__ import annotations

import os
import time
from http.client import HTTPException
from io import FileIO
from pathlib import Path

from util.cli import InputError, first_line, warn
from util.drive import Answer, Broken, Drive, NotServed, page_of
from util.files import hold
from util.progress import bytes_bar
from util.space import check_space, readable, say_full, write_all

CHUNK = 1 << 18


class Withheld(InputError):
    """The provider gives a page instead of the file; others may be had all the same."""


def part_of(target: Path) -> Path:
    """Where the bytes of an unfinished download are."""
    return target.with_name(f"{target.name}.part")


def fetch(drive: Drive, drive_id: str, target: Path) -> None:
    """Download a file, going on where an earlier try ended.

    A connection that breaks is opened again, until that gained nothing for ``drive.tries`` times.

    Raises:
        Withheld: there is a page (quota used up, no such file) instead of the file.
        InputError: no connection, the disk is full, or another run downloads it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    with part.open("ab", buffering=0) as file:
        lock = hold(part)
        try:
            _receive_all(drive, drive_id, file, target)
        except NotServed as error:
            raise Withheld(f"{target.name}: Google Drive gives a page instead of the file ({error}); try again later, "
                           f"or download {page_of(drive_id)} in a browser, put it at {target}, "
                           f"and run this again") from None
        finally:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)
            if lock is not None:
                os.close(lock)
    part.replace(target)


def _receive_all(drive: Drive, drive_id: str, file: FileIO, target: Path) -> None:
    best, failures, total = file.seek(0, os.SEEK_END), 0, None
    while True:
        try:
            answer = drive.open(drive_id, file.seek(0, os.SEEK_END))
            total = answer.total
            with answer.stream:
                _receive(answer, file, target)
            return
        except Broken as problem:
            size = file.seek(0, os.SEEK_END)
            failures, best = (0, size) if size > best else (failures + 1, best)
            if failures == drive.tries:
                of = "" if total is None else f" of {readable(total)}"
                rest = f"; {readable(size)}{of} are here, run this again to go on" if size else ""
                raise InputError(f"{target.name}: cannot be downloaded: {problem}{rest}") from None
            warn(f"{target.name}: {problem}; trying again")
            time.sleep(drive.pause * failures)


def _receive(answer: Answer, file: FileIO, target: Path) -> None:
    """Append what the server sends.

    Raises:
        Broken: it ended before the file did.
        InputError: it does not fit on the disk.
    """
    size = file.seek(0, os.SEEK_END)
    if answer.start > size:
        raise Broken("the server skips bytes")
    file.truncate(answer.start)                     # 0 if the server does not know how to go on
    size = file.seek(answer.start)
    if answer.total is not None:
        check_space(target.parent, answer.total - size, f"the rest of {target.name}")
    with bytes_bar(target.name, size, answer.total) as bar:
        while True:
            try:
                data = answer.stream.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise Broken(f"the connection broke ({first_line(error)})") from None
            if not data:
                break
            try:
                write_all(file, data)
            except OSError as error:
                missing = None if answer.total is None else answer.total - file.seek(0, os.SEEK_END)
                raise say_full(error, target.parent, missing, "the download goes on where it was") from None
            size += len(data)
            bar.update(size)
    if size < (answer.total or 1):
        raise Broken(f"the connection ended after {size} of {answer.total or 'unknown'} bytes")
