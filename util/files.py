"""Atomic writes: output is written under a temporary name and then renamed; locks keep other processes out."""
from __future__ import annotations

import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from util.cli import DISK_FULL, InputError, deferred_signals

TEMPORARY = ".mask_propagation.partial"      # an unmistakable name, since the folder is deleted
LOCK, REPLACED = ".mask_propagation.lock", ".mask_propagation.replaced"
SYSTEM_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}


class LockedError(InputError):
    """Another process writes to the file or folder."""


def prepare_folder(folder: Path) -> None:
    """Create the folder if it does not exist, and check that files can be written to it.

    Raises:
        InputError: they cannot.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
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
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(final: Path, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder, for the block to fill, that is then renamed to ``final``; removed if the block fails.

    An existing folder is renamed aside before and removed after. A process that is killed between the two renames
    leaves it to `recover_folder`. A folder that must stay itself (a mount point, the current folder, one in a
    read-only folder, another user's) is kept, and its files are replaced one by one.

    Args:
        final: the folder, or a symbolic link to it, which stays.
        replaceable: paths, relative to ``final``, of the old files to remove. Other old files are kept, except those
            that the new folder has too.

    Raises:
        LockedError: another process writes to this folder.
    """
    final = Path(os.path.realpath(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    with lock(final):
        _recover(final)
        keep = final.is_dir() and not _is_renamable(final)
        partial = final / TEMPORARY if keep else _hidden(final, TEMPORARY)
        shutil.rmtree(partial, ignore_errors=True)           # left by a killed process
        partial.mkdir()
        try:
            with _naming_full_disk(final):
                yield partial
                with deferred_signals():
                    if final.is_dir():
                        _replace(final, partial, replaceable, keep)
                    else:
                        partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def recover_folder(final: Path) -> None:
    """Complete or undo a replacement by `atomic_folder` that was killed, unless another process is at it."""
    final = Path(os.path.realpath(final))
    if _hidden(final, REPLACED).is_dir():
        with suppress(LockedError), lock(final):
            _recover(final)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keep other processes out of a file or folder during the block. The lock ends with the process.

    Raises:
        LockedError: another process has locked it.
    """
    file = _hidden(path, LOCK) if os.access(path.parent, os.W_OK) else path / LOCK
    holder = filelock.FileLock(file)
    try:
        holder.acquire(timeout=0)
    except filelock.Timeout as error:
        raise LockedError(f"{path}: another run is writing there") from error
    try:
        yield
    finally:
        with suppress(PermissionError):                      # Windows removes no open file
            file.unlink(missing_ok=True)
        holder.release()


def _is_renamable(folder: Path) -> bool:
    current = Path.cwd()
    return not (folder.is_mount() or folder in (current, *current.parents) or not os.access(folder.parent, os.W_OK)
                or folder.stat().st_uid != getattr(os, "geteuid", lambda: 0)())


def _replace(final: Path, partial: Path, replaceable: Collection[str], keep: bool) -> None:
    """Replace an existing folder by the new one, or its files if it is to be kept or cannot be renamed."""
    replaced = _hidden(final, REPLACED)
    try:
        if not keep:
            shutil.copymode(final, partial)
            final.rename(replaced)
    except OSError:                          # as for folders of an image's lower layer in a container
        keep = True
    if keep:
        stale = [final / name for name in replaceable if not (partial / name).exists()]
        for path in _files(partial):
            target = final / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        for path in stale:
            path.unlink(missing_ok=True)
    else:
        partial.rename(final)
        _remove_replaced(final, replaceable)


def _recover(final: Path) -> None:
    replaced = _hidden(final, REPLACED)
    if replaced.is_dir():
        if final.exists():
            _remove_replaced(final)
        else:
            replaced.rename(final)


def _remove_replaced(final: Path, replaceable: Collection[str] = ()) -> None:
    """Move the files that are neither replaceable nor replaced to the new folder, then remove the old one."""
    replaced = _hidden(final, REPLACED)
    for path in _files(replaced):
        target = final / path.relative_to(replaced)
        if path.relative_to(replaced).as_posix() not in replaceable and not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    shutil.rmtree(replaced)


def _files(folder: Path) -> list[Path]:
    """All files and links below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _hidden(path: Path, suffix: str) -> Path:
    """A hidden name beside a file or folder, of at most 255 bytes."""
    name = os.fsencode(path.name)
    if len(name) > 200:
        name = name[:180].decode(errors="ignore").encode() + b"%08x" % zlib.crc32(name)
    return path.with_name(f".{os.fsdecode(name)}{suffix}")


@contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    """Name the file or folder in the error of a full disk; the system names the temporary file or none."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            error.filename = str(path)
        raise


class Writer:
    """Calls functions in order in one background thread, which may lag a few calls behind.

    Use as a context manager: leaving it waits for all calls. `submit` and leaving raise the error of an earlier call.
    """

    MAX_PENDING = 8

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future] = deque()

    def __enter__(self) -> Writer:
        return self

    def submit(self, function: Callable, *args: object) -> None:
        """Schedule ``function(*args)``."""
        self._pending.append(self._pool.submit(function, *args))
        if len(self._pending) > self.MAX_PENDING:
            self._pending.popleft().result()

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for future in self._pending:
                future.result()
