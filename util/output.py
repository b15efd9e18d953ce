"""Output that appears whole or not at all: written under a temporary name, then renamed."""
from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from dataset.video import Video
from util.errors import InputError

try:
    import fcntl
except ImportError:         # Windows
    fcntl = None

OVERLAY_FILES = ("overlay.mp4", "contact_sheet.png")
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


def check_replaceable(folder: Path, names: Collection[str], overwrite: bool) -> None:
    """See that a video's masks may be put there: nothing is there yet, or only its masks, to be overwritten.

    Args:
        names: of the video's frames.

    Raises:
        InputError: something else would be lost, or masks are there and are not to be overwritten.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, or a link to nowhere; name another --output")
    ours = {f"{name}.png" for name in names} | {f"overlay/{name}" for name in OVERLAY_FILES}
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.name not in LITTER]
    found = [path.as_posix() for path in paths if path.parts[0] != TEMPORARY
             and (path != Path("overlay") or (folder / path).is_symlink())]
    foreign = sorted(set(found) - ours)
    if foreign:
        raise InputError(f"{folder}: holds something that is no mask of this clip ({foreign[0]}); "
                         f"name another --output")
    if found and not overwrite:
        raise InputError(f"{folder}: holds masks already; name another --output, or --overwrite them")


def keep_inputs(folder: Path, video: Video) -> None:
    """Refuse to write a video's masks over what it is made of.

    Raises:
        InputError: the folder is that of its frames or masks, or one around it.
    """
    sources = {*video.frames.files(), *video.masks.values(), *([video.truth / "x"] if video.truth else [])}
    target = folder.resolve()
    for source in {path.resolve().parent for path in sources}:
        if target == source or target in source.parents:
            raise InputError(f"{folder}: holds frames or masks that are read; name another --output")


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
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


def write_whole(path: Path, content: str | bytes) -> None:
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


class Notes:
    """What each finished video's masks were made with, in ``<output>/.settings``, so that no two kinds are mixed."""

    def __init__(self, output: Path, settings: dict):
        self.output, self.settings = output, settings

    def check(self, video: str) -> None:
        """See that a finished video's masks are of these settings (or of unknown ones).

        Raises:
            InputError: they are of others.
        """
        try:
            before = dict(json.loads(self._path(video).read_text()))
        except (OSError, ValueError, TypeError):
            return
        for name, value in self.settings.items():
            if before.get(name, "unknown") != value:
                raise InputError(f"{self.output / video}: was made with other settings ({name} was "
                                 f"{before.get(name, 'unknown')}, is {value}); name another --output, or --overwrite")

    def forget(self, video: str) -> None:
        """Before a video is replaced."""
        self._path(video).unlink(missing_ok=True)

    def write(self, video: str) -> None:
        """After a video was finished."""
        self._path(video).parent.mkdir(exist_ok=True)
        write_whole(self._path(video), json.dumps(self.settings, indent=1))

    def _path(self, video: str) -> Path:
        return self.output / ".settings" / f"{video}.json"
