"""Frames as a stream, read ahead by threads."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from dataset.images import read_frame

Item, Result = TypeVar("Item"), TypeVar("Result")


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map(function, items)`` by threads that are a few items ahead of the consumer, in order."""
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Frames(Protocol):
    """A video's frames.

    Attributes:
        names: what the frames' masks are called (without a suffix).
        fps: frames a second, for an overlay video.
    """

    names: list[str]
    fps: float

    def files(self) -> list[Path]:
        """The files that are read."""

    def describe(self, index: int) -> str:
        """The frame in a message."""

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """The frames (H, W, 3) uint8 RGB at ``indices``, which go up or down by one.

        Raises:
            InputError: a frame cannot be read.
        """


class ImageFrames:
    """Frames that are image files, in the order of time."""

    fps = 24.0      # DAVIS's own rate

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self.names = [path.stem for path in paths]

    def files(self) -> list[Path]:
        """The frames."""
        return self.paths

    def describe(self, index: int) -> str:
        """The frame's file."""
        return str(self.paths[index])

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """As `Frames.read`, by ``workers`` threads."""
        return read_ahead(lambda index: read_frame(self.paths[index]), indices, workers)
