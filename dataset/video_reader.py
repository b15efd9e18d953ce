"""Frames as a stream: image files read ahead by threads, and video files decoded by OpenCV."""
from __future__ import annotations

import os
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, dropwhile, islice
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
    Seeking is unreliable in some formats and with a variable frame rate. So the time and the checksum of the frame
    after a seek are compared with those of the first pass. If it comes too late, the seek is repeated to earlier
    frames, and at last the file is decoded from the start.

    Attributes:
        fps: frames per second, on average if the frame rate varies.
        expected: number of frames that the file claims, which is an estimate in some formats; 0 if it claims none.
        problem: what is wrong with a scanned file; None if nothing is.
    """

    CHUNK = 16     # frames kept in memory when reading backward
    COMPLETE = 0.98         # the share of the claimed frames, or of the claimed time, that a complete file has

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
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.expected = expected if 0 < expected < 2 ** 24 else 0
        self.names: list[str] = []
        self.problem: str | None = None
        self._marks: list[tuple[float, int]] = []           # times and checksums of the first frames of chunks
        if scan:
            self.scan(lambda index, frame: None)
            if self.problem:
                warn(f"{path}: {self.problem}")

    def scan(self, on_frame: Callable[[int, np.ndarray], None]) -> None:
        """Decode the file once. ``names`` grows meanwhile; frames that have a name can be read."""
        milliseconds, first, still = 0.0, None, True

        def mark_frames() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal milliseconds, first, still
            for index, (milliseconds, frame) in enumerate(self.decode()):
                if index % self.CHUNK == 0:
                    self._marks.append((milliseconds, zlib.crc32(frame)))
                first = frame if first is None else first
                still = still and np.array_equal(frame, first)
                yield index, frame
        for index, frame in enumerate(check_sizes(mark_frames(), self.describe)):
            self.names.append(f"{index:05d}")
            on_frame(index, frame)
        count = len(self.names)
        if not count:
            raise InputError(f"{self.path}: no frame could be decoded; is it a video?")
        if count < self.COMPLETE * self.expected:
            ends_early = milliseconds / 1000 * self.fps + 1 < self.COMPLETE * self.expected
            self.problem = f"only {count} of {self.expected} " + (
                "frames can be decoded; is the file incomplete, or was it trimmed?" if ends_early else
                "frames can be decoded; its frame rate varies, or it is damaged")
        elif still and count > 1:               # of interlaced videos, OpenCV 4.13 and 5.0 return an arbitrary image
            self.problem = (f"all {count} frames are equal; if the video is interlaced, decode it with "
                            f"ffmpeg -i {shlex.quote(str(self.path))} -vf yadif new.mp4")

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
        start, (time, checksum) = chunk * self.CHUNK, self._marks[chunk]
        earlier = 0
        while earlier < start and time > self._marks[chunk - 1][0]:            # some formats have no times
            frames = self.decode(start - earlier)
            first = next(dropwhile(lambda frame: frame[0] < time, frames), None)
            if first is not None and (first[0], zlib.crc32(first[1])) == (time, checksum):
                return (frame for _, frame in chain([first], frames))
            earlier = 2 * max(earlier, self.CHUNK)
        return (frame for _, frame in islice(self.decode(), start, None))

    def decode(self, start: int = 0) -> Iterator[tuple[float, np.ndarray]]:
        """The times in milliseconds and the frames after a seek, which may have missed ``start``."""
        capture = cv2.VideoCapture(opencv_path(self.path))
        if start > 0:
            capture.set(cv2.CAP_PROP_POS_FRAMES, start)
        while (result := capture.read())[0]:
            yield capture.get(cv2.CAP_PROP_POS_MSEC), cv2.cvtColor(result[1], cv2.COLOR_BGR2RGB)


Frames: TypeAlias = ImageFrames | VideoFrames


def opencv_path(path: Path) -> str:
    """The path for OpenCV: absolute, since it takes a relative one with a colon for a URL."""
    try:
        return os.fsencode(path.absolute()).decode()        # in any locale
    except UnicodeDecodeError as error:                     # OpenCV crashes
        raise InputError(f"{path}: OpenCV cannot open names that are not UTF-8; rename it") from error
