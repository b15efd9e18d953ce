"""Frames as a stream: image files read ahead by threads, and video files decoded by OpenCV."""
from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from dataset.image_io import read_frame
from util.cli import InputError, warn
from util.opencv import cv2

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


class VideoFrames:
    """Frames of a video file, through OpenCV.

    The file is decoded once to count its frames. Reading backward goes by stretches: OpenCV is asked to seek, and
    believed only if the frame there is the one that the first pass saw; otherwise it decodes from the start.

    Args:
        path: the video.

    Raises:
        InputError: it is no video, or has no frames.
    """

    STRETCH = 16     # frames held at once when reading backward

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError(f"{path}: is a folder; name it with --images" if path.is_dir() else
                             f"{path}: no such file")
        self.path = path
        capture = self._open()
        self.fps = capture.get(cv2.CAP_PROP_FPS)
        if not 0 < self.fps < 1000:
            self.fps = ImageFrames.fps
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._fingerprints, shape, count = [], None, 0
        for frame in self._frames(capture):
            if shape not in (None, frame.shape):
                raise InputError(f"{path}: frame {count} is {frame.shape[1]}x{frame.shape[0]} pixels, "
                                 f"those before it {shape[1]}x{shape[0]}")
            shape = frame.shape
            if count % self.STRETCH == 0:
                self._fingerprints.append(zlib.crc32(frame))
            count += 1
        if count == 0:
            raise InputError(f"{path}: no frame could be decoded; is it a video?")
        if count < 0.98 * announced:
            warn(f"{path}: says it has {announced} frames, but only {count} can be decoded; is it cut off?")
        self.names = [f"{index:05d}" for index in range(count)]

    def files(self) -> list[Path]:
        """The one file."""
        return [self.path]

    def describe(self, index: int) -> str:
        """The frame's place in the file."""
        return f"{self.path}, frame {index}"

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """As `Frames.read`, by one thread: a video is decoded in order."""
        if not indices:
            return iter(())
        frames = self._forward(indices[0]) if indices[0] <= indices[-1] else self._backward(indices[0])
        return read_ahead(lambda index: self._next(frames, index), indices, min(workers, 1))

    def _next(self, frames: Iterator[np.ndarray], index: int) -> np.ndarray:
        frame = next(frames, None)
        if frame is None:
            raise InputError(f"{self.describe(index)}: could be decoded before, but not any more")
        return np.ascontiguousarray(frame[..., ::-1])

    def _forward(self, start: int) -> Iterator[np.ndarray]:
        stretch = start // self.STRETCH
        for position, frame in enumerate(self._from_stretch(stretch), stretch * self.STRETCH):
            if position >= start:
                yield frame

    def _backward(self, start: int) -> Iterator[np.ndarray]:
        for stretch in range(start // self.STRETCH, -1, -1):
            first, held = stretch * self.STRETCH, []
            for frame in self._from_stretch(stretch):
                held.append(frame)
                if len(held) == min(self.STRETCH, start + 1 - first):
                    break
            yield from reversed(held)

    def _from_stretch(self, stretch: int) -> Iterator[np.ndarray]:
        """All frames from the beginning of a stretch on."""
        capture = self._open()
        if stretch > 0:
            capture.set(cv2.CAP_PROP_POS_FRAMES, stretch * self.STRETCH)
            found, frame = capture.read()
            if not found or zlib.crc32(frame) != self._fingerprints[stretch]:
                capture = self._open()
                for _ in range(stretch * self.STRETCH):
                    capture.grab()
            else:
                yield frame
        yield from self._frames(capture)

    @staticmethod
    def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
        while True:
            found, frame = capture.read()
            if not found:
                return
            yield frame

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise InputError(f"{self.path}: not a video that OpenCV can read")
        return capture
