"""Frames as a stream: image files read ahead by threads, and video files decoded by OpenCV."""
from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np

from dataset.image_io import check_regular_file, read_frame
from util.cli import InputError, warn
from util.opencv import cv2
from util.parallel import map_in_threads

MIN_SIDE = 16       # pixels: the stride of the network's features


def check_sizes(frames: Iterable[tuple[int, np.ndarray]], describe: Callable[[int], str]) -> Iterator[np.ndarray]:
    """Yield the frames of (index, frame) pairs, whose sizes must be equal and at least 16 pixels."""
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
    """Frames in image files, in the order of time. ``names`` are those of the frames' masks, without suffix."""

    fps = 24.0      # of DAVIS, for an overlay video

    def __init__(self, paths: list[Path], exif_rotation: bool = False):
        self.paths, self.exif_rotation = paths, exif_rotation
        self.names = [path.stem for path in paths]

    def describe(self, index: int) -> str:
        """The file and frame, for messages."""
        return str(self.paths[index])

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """The frames (H, W, 3) uint8 RGB at ascending or descending consecutive indices, read by threads."""
        frames = map_in_threads(lambda index: read_frame(self.paths[index], self.exif_rotation), indices, workers)
        return check_sizes(zip(indices, frames, strict=True), self.describe)


class VideoFrames:
    """Frames of a video file, decoded by OpenCV; used like `ImageFrames`, named by their index.

    The file is decoded once to count its frames, at once or by a later call of `scan`. It is read backward in chunks.
    Seeking is unreliable in some formats: the frame after a seek is compared with the checksum of the first pass, and
    if it differs, the file is decoded from the start.
    """

    CHUNK = 16     # frames kept in memory when reading backward

    def __init__(self, path: Path, scan: bool = True):
        if path.is_dir():
            raise InputError(f"{path}: is a folder; use --images")
        check_regular_file(path)
        self.path, self.paths = path, [path]
        capture = cv2.VideoCapture(opencv_path(path))
        if not capture.isOpened():
            raise InputError(f"{path}: not a video that OpenCV can read")
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else ImageFrames.fps
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))       # an estimate in some formats
        self.expected = expected if 0 < expected < 2 ** 24 else 0
        self.names: list[str] = []
        self._checksums: list[int] = []
        if scan:
            self.scan(lambda index, frame: None)

    def scan(self, on_frame: Callable[[int, np.ndarray], None]) -> None:
        """Decode the file once. ``names`` grows meanwhile; frames that have a name can be read."""
        for index, frame in enumerate(check_sizes(enumerate(self.decode()), self.describe)):
            if index % self.CHUNK == 0:
                self._checksums.append(zlib.crc32(frame))
            self.names.append(f"{index:05d}")
            on_frame(index, frame)
        if not self.names:
            raise InputError(f"{self.path}: no frame could be decoded; is it a video?")
        if len(self.names) < 0.98 * self.expected:
            warn(f"{self.path}: only {len(self.names)} of {self.expected} frames can be decoded; is the file "
                 f"incomplete?")

    def describe(self, index: int) -> str:
        return f"{self.path}, frame {index}"

    def read(self, indices: Sequence[int], workers: int) -> Iterator[np.ndarray]:
        """As `ImageFrames.read`, in at most one thread, since a video is decoded in order."""
        if not indices:
            return iter(())
        chunk, offset = divmod(indices[0], self.CHUNK)
        forward = indices[0] <= indices[-1]
        frames = islice(self._from_chunk(chunk), offset, None) if forward else self._backward(indices[0])

        def next_frame(index: int) -> np.ndarray:
            for frame in frames:
                return frame
            raise InputError(f"{self.describe(index)}: can no longer be decoded; did the file change?")
        return map_in_threads(next_frame, indices, min(workers, 1))

    def _backward(self, start: int) -> Iterator[np.ndarray]:
        for chunk in range(start // self.CHUNK, -1, -1):
            count = min(self.CHUNK, start + 1 - chunk * self.CHUNK)
            yield from reversed(list(islice(self._from_chunk(chunk), count)))

    def _from_chunk(self, chunk: int) -> Iterator[np.ndarray]:
        """All frames from the first one of a chunk on."""
        frames = self.decode(chunk * self.CHUNK)
        first = next(frames, None)
        if first is not None and zlib.crc32(first) == self._checksums[chunk]:
            return chain([first], frames)
        return islice(self.decode(), chunk * self.CHUNK, None)

    def decode(self, start: int = 0) -> Iterator[np.ndarray]:
        """The frames after a seek, which may have missed ``start``."""
        capture = cv2.VideoCapture(opencv_path(self.path))
        if start > 0:
            capture.set(cv2.CAP_PROP_POS_FRAMES, start)
        while (result := capture.read())[0]:
            yield cv2.cvtColor(result[1], cv2.COLOR_BGR2RGB)


Frames: TypeAlias = ImageFrames | VideoFrames


def opencv_path(path: Path) -> str:
    """The path for OpenCV: absolute, since it takes a relative one with a colon for a URL."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:                 # OpenCV crashes
        raise InputError(f"{path}: OpenCV cannot open names that are not UTF-8; rename it") from error
    return str(path.absolute())
