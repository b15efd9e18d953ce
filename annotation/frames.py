"""Random access to the frames of a clip for the page: exact frames on demand, and small previews of a video."""
from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from dataset.clip import image_frames
from dataset.video_reader import VideoFrames, check_sizes, opencv_path
from util.cli import InputError, first_line, user_message
from util.opencv import cv2

CACHE_BYTES = 2 ** 28
PREVIEW_WIDTH = 480
JPEG_QUALITY = 92
MAX_FRAMES = 10 ** 6            # of a video whose length is unknown


class ClipFrames:
    """The frames of a clip, which is open at once, however long it is.

    `scan` reads a video in the background, to count its frames and to make the previews. Until then its number of
    frames is the one that the file claims, and only the frames that were scanned are exact.

    Args:
        video: a video file; None for
        images: a folder of image files.

    Attributes:
        digest: of the sizes of the files and of the frames, by which the clip is recognised.
        problem: why the clip cannot be read, or not completely; None if it can.
        claimed: number of frames that a video has at least, as far as is known before the scan.
    """

    def __init__(self, video: Path | None, images: Path | None):
        self.reader = image_frames(images) if video is None else VideoFrames(video, scan=False)
        self.name = images.resolve().name if video is None else video.stem
        self.numbered = video is not None
        self.error: str | None = None           # why the scan failed
        self.problem: str | None = None
        self.claimed = max(1, self.reader.expected) if self.numbered else 0
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._decoding = threading.Lock()
        self._stream: tuple[int, Iterator[np.ndarray]] = (-VideoFrames.CHUNK, iter(()))
        self._previews: _Previews | None = None
        self.scanned, self.settled = threading.Event(), threading.Event()       # settled: after on_scanned of `scan`
        if not self.numbered:
            self.scanned.set()
            self.settled.set()
        self._closed = threading.Event()
        self._scan: threading.Thread | None = None
        first = next(check_sizes([(0, self._seek(0))], self.reader.describe) if self.numbered else
                     self.reader.read([0], workers=0))
        self.height, self.width = first.shape[:2]
        sizes = [(path.name if images else "", path.stat().st_size) for path in self.reader.paths]
        self.digest = f"{zlib.crc32(repr([sizes, self.height, self.width]).encode()):08x}"

    def scan(self, folder: Path, on_scanned: Callable[[], None]) -> None:
        """Start to read a video, with a temporary file for the previews in ``folder``, and call ``on_scanned`` last."""
        def run() -> None:
            try:
                self.reader.scan(self._add_preview)
                self.problem = self.reader.problem
            except (InputError, OSError, cv2.error) as error:
                self.error = self.problem = user_message(error) or first_line(error)
            if not self._closed.is_set():
                self.scanned.set()
                try:
                    on_scanned()
                finally:
                    self.settled.set()
        if self.numbered:
            import av  # noqa: F401     (takes 0.1 s, which the first jump need not wait for)
            self._previews = _Previews(folder)
            self._scan = threading.Thread(target=run, daemon=True)
            self._scan.start()

    def close(self) -> None:
        """End the scan: a thread in OpenCV at the end of the process aborts it."""
        self._closed.set()
        if self._scan is not None:
            self._scan.join()

    def _add_preview(self, index: int, frame: np.ndarray) -> None:
        if self._closed.is_set():
            raise InputError("closed")
        self._previews.add(jpeg(shrink(frame)))

    @property
    def names(self) -> list[str]:
        """The names of the frames; of a video that is being scanned, of those that the file claims to have."""
        if self.scanned.is_set():
            return self.reader.names
        return [f"{index:05d}" for index in range(max(self.claimed, len(self.reader.names)))]

    @property
    def progress(self) -> float:
        """The share of the frames that was scanned."""
        return 1.0 if self.scanned.is_set() else min(0.99, len(self.reader.names) / len(self.names))

    @property
    def longest(self) -> int:
        """The largest number of frames that the clip can turn out to have."""
        return len(self.names) if self.scanned.is_set() else MAX_FRAMES

    def is_exact(self, index: int) -> bool:
        """Whether the exact frame can be read."""
        return self.scanned.is_set() or index < len(self.reader.names)

    def exact(self, index: int) -> np.ndarray:
        """The frame (H, W, 3) uint8 RGB, from a bounded cache or decoded.

        Raises:
            InputError: the frame cannot be read, or has another size than the first one.
        """
        with self._decoding:
            if index not in self._cache:
                self._decode(index)
            self._cache.move_to_end(index)
            return self._cache[index]

    def preview(self, index: int, sought: bool = False) -> bytes | None:
        """A JPEG of the frame, which may be small; None if there is none.

        Of a frame that has not been scanned, the keyframe before it, which takes some milliseconds, or, if it is
        ``sought``, the frame that the decoder finds by seeking, which may take seconds.
        """
        if self._previews is None:
            return None
        preview = self._previews.get(index)
        if preview is not None or self.is_exact(index):
            return preview
        keyframe = None if sought else self._keyframe(index)
        if keyframe is not None:
            return jpeg(shrink(keyframe))
        with self._decoding:
            return jpeg(shrink(self._seek(index)))

    def _decode(self, index: int) -> None:
        """Put the frame into the cache; of a video also the frames decoded on the way to it."""
        position, stream = self._stream
        if not self.numbered:
            position, stream = index, self.reader.read([index], workers=0)
        elif not position <= index < position + VideoFrames.CHUNK:
            position = index - index % VideoFrames.CHUNK
            stream = self.reader.read(range(position, 2 ** 31), workers=0)      # up to the frame that is asked for
        self._stream = (-VideoFrames.CHUNK, iter(()))           # if the file cannot be read
        for decoded in range(position, index + 1):
            frame = next(stream)
            if frame.shape[:2] != (self.height, self.width):
                raise InputError(f"{self.reader.describe(decoded)}: {frame.shape[1]}x{frame.shape[0]} pixels, the "
                                 f"first frame {self.width}x{self.height}")
            self._cache[decoded] = frame
            if len(self._cache) > max(2, CACHE_BYTES // frame.nbytes):
                self._cache.popitem(last=False)
        self._stream = (index + 1, stream)

    def _keyframe(self, index: int) -> np.ndarray | None:
        """The keyframe at or before a frame. OpenCV cannot stop there: it decodes all frames from it on."""
        import av
        try:
            with av.open(opencv_path(self.reader.path)) as container:
                stream = container.streams.video[0]
                time = int(index / self.reader.fps / stream.time_base) + (stream.start_time or 0)
                container.seek(time, stream=stream)
                frame = next(container.decode(stream))
                return None if frame.rotation else frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, IndexError, StopIteration, TypeError):      # as where a format has no time stamps
            return None

    def _seek(self, index: int) -> np.ndarray:
        for _, frame in self.reader.decode(index):
            return frame
        raise InputError(f"{self.reader.describe(index)}: cannot be decoded; is it a video?")


class _Previews:
    """JPEG images in a temporary file, in the order of their frames."""

    def __init__(self, folder: Path):
        self._file = TemporaryFile(dir=folder)     # noqa: SIM115 (open as long as the clip)
        self._ends = [0]
        self._lock = threading.Lock()

    def add(self, image: bytes) -> None:
        with self._lock:
            self._file.seek(self._ends[-1])
            self._file.write(image)
            self._ends.append(self._ends[-1] + len(image))

    def get(self, index: int) -> bytes | None:
        with self._lock:
            if index + 1 >= len(self._ends):
                return None
            self._file.seek(self._ends[index])
            return self._file.read(self._ends[index + 1] - self._ends[index])


def jpeg(frame: np.ndarray) -> bytes:
    """The frame (H, W, 3) as a JPEG file."""
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def shrink(frame: np.ndarray) -> np.ndarray:
    """The frame (H, W, 3) at the size of a preview, if it is larger."""
    factor = PREVIEW_WIDTH / frame.shape[1]
    return frame if factor >= 1 else cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
