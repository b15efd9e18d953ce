"""Output that appears whole or not at all: written under a temporary name, then renamed."""
from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from util.cli import InputError

try:
    import fcntl
except ImportError:         # Windows
    fcntl = None

TEMPORARY = ".mask_propagation.partial"      # a name that no one else gives, since what is in it is thrown away
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}


def prepare_folder(folder: Path) -> None:
    """Make the folder if need be, and see that it can be written to.

    Raises:
        InputError: it cannot.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror})") from None


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``final`` at the end; on an error it goes away.

    A folder that is there already stays (it may be a mount point, or a link), and its content is replaced at the end,
    the last file last.

    Raises:
        InputError: another run is writing there.
    """
    final = final.resolve()
    replace = final.is_dir()
    partial = final / TEMPORARY if replace else final.with_name(f".{final.name}{TEMPORARY}")
    partial.mkdir(parents=True, exist_ok=True)
    lock = hold(partial)
    try:
        _clear(partial)                                # of a run that was killed
        yield partial
        if replace:
            _clear(final, keep=partial)
            for path in sorted(partial.iterdir()):
                path.rename(final / path.name)
        else:
            partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def hold(path: Path) -> int | None:
    """Keep other runs out of a folder or file until what this returns is closed, or this process ends, however it ends.

    Raises:
        InputError: another run is there.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise InputError(f"{path}: another run is writing there") from None
    return descriptor


def _clear(folder: Path, keep: Path | None = None) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path != keep:
                shutil.rmtree(path)
        else:
            path.unlink()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file at once."""
    partial = path.with_name(f".{path.name}.partial.{os.getpid()}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


class Writer:
    """Calls functions one after the other in a thread, at most a few behind; their errors come up at the next call.

    Use as a context: leaving it waits for the rest.
    """

    BEHIND = 8

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future] = deque()

    def __enter__(self) -> Writer:
        return self

    def submit(self, function: Callable, *args: object) -> None:
        """Call ``function(*args)`` soon."""
        self._pending.append(self._pool.submit(function, *args))
        if len(self._pending) > self.BEHIND:
            self._pending.popleft().result()

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            while self._pending:
                self._pending.popleft().result()
        self._pool.shutdown(cancel_futures=True)


