"""Atomic writes: output is written under a temporary name and then renamed; locks keep other processes out."""
from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import filelock

from util.cli import DISK_FULL, InputError, deferred_signals, warn

TEMPORARY = ".mask_propagation.partial"      # an unmistakable name, since the folder is deleted
CANNOT_LOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EPERM}     # as on some network file systems
LOCK, REPLACED = ".mask_propagation.lock", ".mask_propagation.replaced"


class LockedError(InputError):
    """Another process writes to the file or folder."""


def prepare_folder(folder: Path) -> None:
    """Create the folder if it does not exist, and check that files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror})") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path, for the block to write to, that is then renamed to ``path``; removed if the block fails.

    The temporary name has another suffix, so image formats must be named. Missing parent folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _hidden(path, f".{os.getpid()}.partial")
    try:
        with _naming_full_disk(path):
            yield partial
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file, see `atomic_file`."""
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)


@contextmanager
def atomic_folder(final: Path, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder, for the block to fill, that is then renamed to ``final``; removed if the block fails.

    Args:
        final: the folder, or a symbolic link to it, which stays.
        replaceable: paths, relative to ``final``, of the old files to remove. Other old files are kept, except those
            that the new folder has too.
    """
    final = Path(os.path.realpath(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(final)
    with lock(final):
        partial = final / TEMPORARY if final.is_dir() else _hidden(final, TEMPORARY)
        shutil.rmtree(partial, ignore_errors=True)           # left by a killed process
        partial.mkdir()
        try:
            with _naming_full_disk(final):
                yield partial
                with deferred_signals():
                    if partial.parent == final:
                        _replace(final, partial, replaceable)
                    else:
                        partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _replace(final: Path, partial: Path, replaceable: Collection[str]) -> None:
    """Replace a folder by the new one in it. `recover_folder` undoes or completes this after a kill."""
    replaced = _hidden(final, REPLACED)
    shutil.copymode(final, partial)
    with suppress(OSError):                                  # such as a mount point
        if not Path.cwd().is_relative_to(final):
            final.rename(replaced)
    if final.exists():                                       # it stays, and its files are replaced one by one
        stale = [final / name for name in replaceable if not (partial / name).exists()]
        _move_files(partial, final, overwrite=True)
        for path in stale:
            path.unlink(missing_ok=True)
    else:
        (replaced / TEMPORARY).rename(final)
        _move_files(replaced, final, skip=replaceable)
        shutil.rmtree(replaced)


def recover_folder(final: Path) -> None:
    """Undo or complete a replacement by `atomic_folder` that was killed, unless another process is at it."""
    final = Path(os.path.realpath(final))
    replaced = _hidden(final, REPLACED)
    if replaced.is_dir():
        with suppress(LockedError), lock(final):
            if final.exists():
                _move_files(replaced, final)
                shutil.rmtree(replaced)
            else:
                replaced.rename(final)


def _move_files(source: Path, target: Path, overwrite: bool = False, skip: Collection[str] = ()) -> None:
    """Move all files and links below a folder to the same places below another one."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if ((path.is_symlink() or not path.is_dir()) and name.as_posix() not in skip
                and (overwrite or not os.path.lexists(target / name))):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(target / name)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep other processes out of a file or folder during the block. The lock ends with the process."""
    file = _hidden(path, LOCK) if os.access(path.parent, os.W_OK) else path / LOCK
    holder = filelock.FileLock(file)
    try:
        holder.acquire(timeout=0)
    except filelock.Timeout as error:
        raise LockedError(f"{path}: another run is writing there") from error
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise
        warn(f"{path}: this file system cannot lock files; make sure that no other run writes there")
    try:
        yield
    finally:
        with suppress(PermissionError):                      # Windows removes no open file
            file.unlink(missing_ok=True)
        holder.release()


def _hidden(path: Path, suffix: str) -> Path:
    """A hidden name beside a file or folder, of at most 255 bytes."""
    encoded = os.fsencode(path.name)
    return path.with_name(f".{path.name if len(encoded) < 200 else zlib.crc32(encoded)}{suffix}")


@contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    """Name the file or folder in the error of a full disk; the system names the temporary file or none."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            error.filename = str(path)
        raise
