"""Unpacking archives that others made, trusting nothing in them.

Folders and files are all that is ever made, each by this code and below the folder asked for, so that no name can lead
elsewhere. (`tarfile` could check by itself only in Pythons later than the oldest that this project runs on, and
`zipfile` would silently change names.) Symbolic links that stay inside are left out, hard links become copies; anything
else is a reason not to use the archive.
"""
from __future__ import annotations

import lzma
import posixpath
import re
import shutil
import tarfile
import zipfile
import zlib
from contextlib import closing
from pathlib import Path

from util.cli import first_line, warn
from util.members import CHUNK, Damaged, Member, tar_members, zip_members, zip_size
from util.progress import bytes_bar
from util.space import check_space, say_full, write_all

LITTER = {"__MACOSX", ".DS_Store"}       # what a Mac adds: it looks like the data, and is not


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar, compressed or not, below a folder that is empty.

    Raises:
        Damaged: it cannot be read, or holds what would not stay in the folder.
        InputError: there is not enough room.
    """
    is_zip, done = archive.suffix == ".zip", 0
    try:
        total = zip_size(archive) if is_zip else archive.stat().st_size
        check_space(folder, total, f"what is in {archive.name}")
        with bytes_bar(f"unpacking {archive.name}", 0, total) as bar, \
                closing((zip_members if is_zip else tar_members)(archive)) as members:
            for member in members:
                _make(member, folder)
                done += member.size
                bar.update(min(done, total))         # a compressed .tar holds more than its size
    except Damaged as error:
        raise Damaged(f"{archive.name}: {error}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError,
            NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise Damaged(f"{archive.name}: the archive is damaged ({first_line(error)})") from None
    except OSError as error:
        if error.errno is None:                      # gzip's and bz2's way to say it
            raise Damaged(f"{archive.name}: the archive is damaged ({first_line(error)})") from None
        raise say_full(error, folder.parent, total - done, f"{archive} is kept") from None


def _make(member: Member, folder: Path) -> None:
    """Make one member below the folder."""
    parts = _inside(member.name, member.name)
    if LITTER.intersection(parts):
        return
    target = folder.joinpath(*parts)
    if member.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
        return
    if not parts:
        raise Damaged("the archive is damaged (a file without a name)")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.kind == "file":
        with member.open() as source, target.open("wb", buffering=0) as file:
            left = member.size
            while data := source.read(CHUNK):
                write_all(file, data)
                left -= len(data)
        if left:
            raise Damaged(f"the archive is damaged ({member.name} is not all there)")
    elif member.kind == "hard link":
        source = folder.joinpath(*_inside(member.link, member.name))
        if not source.is_file():
            raise Damaged(f"the archive is damaged ({member.name} is a link to {member.link}, which is not there)")
        if source != target:
            shutil.copyfile(source, target)
    elif member.kind == "symbolic link":
        _inside(posixpath.join("/".join(parts[:-1]), member.link), member.name, climbing=True)
        warn(f"{member.name} is a symbolic link: left out")
    else:
        raise Damaged(f"{member.name} is neither file nor folder; not unpacked")


def _inside(path: str, name: str, climbing: bool = False) -> list[str]:
    """The parts of a path in an archive.

    Args:
        path: that must not lead out of the archive's folder.
        name: of the member it belongs to, for the message.
        climbing: it may have ``..`` in it as long as it stays inside.

    Raises:
        Damaged: it leads out.
    """
    names = re.split(r"[/\\]", posixpath.normpath(path) if climbing else path)
    parts = [part for part in names if part not in ("", ".")]
    if ".." in parts or re.match(r"[/\\]|[A-Za-z]:", path):
        raise Damaged(f"{name} leads out of the folder; not unpacked")
    return parts
