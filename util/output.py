"""Output that appears whole or not at all: written under a temporary name, then renamed."""
from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from dataset.video import Video
from util.errors import InputError


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


def check_replaceable(folder: Path, overwrite: bool) -> None:
    """See that a folder of masks may be put there: nothing is there yet, or only masks that are to be overwritten.

    Raises:
        InputError: something else would be lost.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name another --output")
    content = list(folder.iterdir())
    foreign = [path for path in content if path.suffix != ".png" and path.name != "overlay"]
    if foreign:
        raise InputError(f"{folder}: holds something else than masks ({foreign[0].name}); name another --output")
    if content and not overwrite:
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
    """A temporary folder that becomes ``final`` at the end, replacing what was there; on an error it goes away."""
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)         # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        if final.exists():
            old = final.with_name(f".{final.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
            partial.rename(final)
            shutil.rmtree(old)
        else:
            partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file at once."""
    partial = path.with_name(f".{path.name}.partial.{os.getpid()}")
    partial.write_text(text)
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


def check_settings(folder: Path, settings: dict, overwrite: bool) -> None:
    """Keep masks of different settings apart: note the settings in the folder, refuse it if it has others.

    Raises:
        InputError: what is in the folder was made with other settings, and is not to be overwritten.
    """
    path = folder / ".settings.json"
    if path.is_file() and not overwrite:
        try:
            before = json.loads(path.read_text())
        except ValueError:
            before = settings
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            name = changed[0]
            raise InputError(f"{folder}: holds masks made with other settings ({name} was {before.get(name)}, is "
                             f"{settings[name]}); name another --output, or --overwrite them")
    write_whole(path, json.dumps(settings, indent=1))
