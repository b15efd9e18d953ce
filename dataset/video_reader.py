"""Frames as a stream: image files read ahead by threads, and video files decoded by OpenCV."""
from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from dataset.image_io import check_regular_file, read_frame
from util.cli import InputError, warn
from util.opencv import cv2

MIN_SIDE = 16       # pixels: the stride of the network's features
Item, Result = TypeVar("Item"), TypeVar("Result")


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map(function, items)`` in threads that work a few items ahead of the consumer; 0 workers: without threads."""
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


def check_sizes(frames: Iterable[tuple[int, np.ndarray]], describe: Callable[[int], str]) -> Iterator[np.ndarray]:
    """Yield the frames of (index, frame) pairs.

    Raises:
        InputError: a frame is smaller than 16 pixels, or its size differs from the first one's.
    """
    shape = None
    for index, frame in frames:
        size = f"{describe(index)}: {frame.shape[1]}x{frame.shape[0]} pixels"
        if min(frame.shape[:2]) < MIN_SIDE:
            raise InputError(f"{size}; frames need at least {MIN_SIDE} on both sides")
        if shape not in (None, frame.shape):
            raise InputError(f"{size}, the frames before it {shape[1]}x{shape[0]}")
        shape = frame.shape
        yield frame


class ImageFrames:
    """Frames in image files.

    Args:
        exif_rotation: see `read_frame`.

    Attributes:
        paths: the files that are read, in the order of time.
        names: file names of the frames' masks, without suffix.
        fps: frames per second, for an overlay video.
    """

    fps = 24.0      # of DAVIS

    def __init__(self, paths: list[Path], exif_rotation: bool = False):
        self.paths, self.exif_rotation = paths, exif_rotation
        self.names = [path.stem for path in paths]

    def describe(self, index: int) -> str:
        """The file and frame, for messages."""
        return str(self.paths[index])

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """The frames (H, W, 3) uint8 RGB at ascending or descending consecutive indices, read by threads.

        Raises:
            InputError: see `read_frame` and `check_sizes`.
        """
        frames = read_ahead(lambda index: read_frame(self.paths[index], self.exif_rotation), indices, workers)
        return check_sizes(zip(indices, frames, strict=True), self.describe)


class VideoFrames:
    """Frames of a video file, decoded by OpenCV; used like `ImageFrames`, named by their index.

    The file is decoded once to count its frames. It is read backward in chunks. Seeking is unreliable in some formats:
    the frame after a seek is compared with the checksum of the first pass, and if it differs, the file is decoded from
    the start.

    Raises:
        InputError: the file is no video, or its frames cannot be used, see `check_sizes`.
    """

    CHUNK = 16     # frames kept in memory when reading backward

    def __init__(self, path: Path):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; use --images")
        check_regular_file(path)
        self.path, self.paths = path, [path]
        capture = self._open()
        self.fps = capture.get(cv2.CAP_PROP_FPS)
        if not 0 < self.fps < 1000:
            self.fps = ImageFrames.fps
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._checksums, count = [], 0
        for frame in check_sizes(enumerate(self._decode(capture)), self.describe):
            if count % self.CHUNK == 0:
                self._checksums.append(zlib.crc32(frame))
            count += 1
        if count == 0:
            raise InputError(f"{path}: no frame could be decoded; is it a video?")
        if count < 0.98 * expected:
            warn(f"{path}: only {count} of {expected} frames can be decoded; is the file incomplete?")
        self.names = [f"{index:05d}" for index in range(count)]

    def describe(self, index: int) -> str:
        return f"{self.path}, frame {index}"

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """As `ImageFrames.read`, in at most one thread, since a video is decoded in order."""
        if not indices:
            return iter(())
        chunk, offset = divmod(indices[0], self.CHUNK)
        forward = indices[0] <= indices[-1]
        frames = islice(self._from_chunk(chunk), offset, None) if forward else self._backward(indices[0])
        return read_ahead(lambda index: self._next(frames, index), indices, min(workers, 1))

    def _next(self, frames: Iterator[np.ndarray], index: int) -> np.ndarray:
        frame = next(frames, None)
        if frame is None:
            raise InputError(f"{self.describe(index)}: can no longer be decoded; did the file change?")
        return np.ascontiguousarray(frame[..., ::-1])

    def _backward(self, start: int) -> Iterator[np.ndarray]:
        for chunk in range(start // self.CHUNK, -1, -1):
            count = min(self.CHUNK, start + 1 - chunk * self.CHUNK)
            yield from reversed(list(islice(self._from_chunk(chunk), count)))

    def _from_chunk(self, chunk: int) -> Iterator[np.ndarray]:
        """All frames from the first one of a chunk on."""
        capture = self._open()
        if chunk > 0:
            capture.set(cv2.CAP_PROP_POS_FRAMES, chunk * self.CHUNK)
            success, frame = capture.read()
            if success and zlib.crc32(frame) == self._checksums[chunk]:
                yield frame
            else:
                capture = self._open()
                for _ in range(chunk * self.CHUNK):
                    capture.grab()
        yield from self._decode(capture)

    @staticmethod
    def _decode(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
        while (result := capture.read())[0]:
            yield result[1]

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(opencv_path(self.path))
        if not capture.isOpened():
            raise InputError(f"{self.path}: not a video that OpenCV can read")
        return capture


Frames: TypeAlias = ImageFrames | VideoFrames


def opencv_path(path: Path) -> str:
    """The path for OpenCV: absolute, since it takes a relative one with a colon for a URL.

    Raises:
        InputError: the path is not valid UTF-8, on which OpenCV crashes.
    """
    try:
        path.absolute().as_posix().encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: OpenCV cannot open names that are not UTF-8; rename it") from error
    return str(path.absolute())
