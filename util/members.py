"""What archives of either kind hold, one member after the other."""
from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from util.cli import InputError

CHUNK = 1 << 20


class Damaged(InputError):
    """An archive that is of no use."""


class Member(NamedTuple):
    """A file (``open`` reads it), a folder, a symbolic link or a hard link (``link``: where to), or something else."""
    name: str
    kind: str
    size: int = 0
    link: str = ""
    open: Callable[[], IO[bytes]] | None = None


def zip_size(path: Path) -> int:
    """The bytes of all files in a .zip."""
    with zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())


def zip_members(path: Path) -> Iterator[Member]:
    """Of a .zip."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)        # 0: made where files have no such kinds
            if info.is_dir():
                yield Member(info.filename, "folder")
            elif kind == stat.S_IFLNK:
                yield Member(info.filename, "symbolic link", link=archive.read(info).decode(errors="replace"))
            elif kind in (0, stat.S_IFREG):
                yield Member(info.filename, "file", info.file_size, open=lambda info=info: archive.open(info))
            else:
                yield Member(info.filename, "other")


def tar_members(path: Path) -> Iterator[Member]:
    """Of a .tar, compressed or not.

    Raises:
        Damaged: it ends before its end.
    """
    with tarfile.open(path) as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()                             # there are millions: they would fill the memory
            if info.isdir():
                yield Member(info.name, "folder")
            elif info.issym() or info.islnk():
                yield Member(info.name, "hard link" if info.islnk() else "symbolic link", link=info.linkname)
            elif info.isfile():
                yield Member(info.name, "file", info.size, open=lambda info=info: archive.extractfile(info))
            else:
                yield Member(info.name, "other")
        archive.fileobj.seek(archive.offset)                    # tarfile takes any garbled header for the end
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise Damaged("the archive is damaged (it is cut off)")
        while archive.fileobj.read(CHUNK):                      # to the sum at the end of a compressed one
            pass
