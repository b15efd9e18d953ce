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
    leaves it to `recover_folder`. Where the folder cannot be renamed (a mount point, the current folder, a parent
    without write permission), its files are replaced one by one.

    Args:
        final: the folder, or a symbolic link to it, which stays.
        replaceable: paths, relative to ``final``, of the old files to remove. Other old files are kept, except those
            that the new folder has too.

    Raises:
        LockedError: another process writes to this folder.
    """
    final, current = Path(os.path.realpath(final)), Path.cwd()
    final.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(final)
    in_place = final.is_dir() and (os.path.ismount(final) or final in (current, *current.parents)
                                   or not os.access(final.parent, os.W_OK))
    partial = final / TEMPORARY if in_place else _hidden(final, TEMPORARY)
    with lock(final):
        for left_by_killed_process in (final / TEMPORARY, partial):
            shutil.rmtree(left_by_killed_process, ignore_errors=True)
        partial.mkdir()
        try:
            with _naming_full_disk(final):
                yield partial
                with deferred_signals():
                    if not final.is_dir():
                        partial.rename(final)
                    elif in_place or not _swap(partial, final, replaceable):
                        stale = [final / name for name in replaceable if not (partial / name).exists()]
                        _move_files(partial, final, overwrite=True)
                        for path in stale:
                            path.unlink(missing_ok=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, final: Path, replaceable: Collection[str]) -> bool:
    """Put a new folder in the place of an old one and move other files to it; False if the old one stays."""
    replaced = _hidden(final, REPLACED)
    shutil.copymode(final, partial)
    try:
        final.rename(replaced)
    except OSError:                          # not all file systems of containers rename folders
        return False
    partial.rename(final)
    _move_files(replaced, final, skip=replaceable)
    shutil.rmtree(replaced)
    return True


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
