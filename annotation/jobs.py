"""What runs while the page is used: one propagation or export at a time."""
from __future__ import annotations

import argparse
import multiprocessing
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory

from annotation.export import export
from annotation.project import DIRECTIONS, Pass, Project
from dataset.video import Video
from inference.passes import frame_ranges
from util.cli import InputError, first_line, pluralize, user_message

WORKER_ENDED = ("the process that propagates has ended unexpectedly, perhaps for lack of memory; propagate again, or "
                "restart with a smaller --size or --max_memory_frames")


class StoppedError(Exception):
    """The job was stopped."""


@dataclass
class Job:
    """The progress of a propagation or an export."""
    kind: str
    direction: str = ""
    status: str = "running"         # running, done, stopped or failed
    message: str = ""
    frame: int | None = None        # the latest one
    done: int = 0
    total: int = 0
    _times: deque[float] = field(default_factory=lambda: deque([time.monotonic()], maxlen=20))

    def advance(self, frame: int | None = None) -> None:
        """Count a frame."""
        self.frame, self.done = frame, self.done + 1
        self._times.append(time.monotonic())

    def as_dict(self) -> dict:
        """For the page, with frames/s and the seconds left."""
        seconds = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / seconds if seconds > 0 else None
        left = (self.total - self.done) / rate if rate else None
        return {"kind": self.kind, "direction": self.direction, "status": self.status, "message": self.message,
                "frame": self.frame, "done": self.done, "total": self.total, "rate": rate, "seconds_left": left}


class Worker:
    """The process that has the network. It starts at once.

    Args:
        args: of `inference.arguments.add_arguments`.
    """

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, pipe = context.Pipe()
        self._stop = context.Event()
        self._process = context.Process(target=_work, args=(pipe, self._stop, self._args), daemon=True)
        self._process.start()
        pipe.close()

    def wait_until_ready(self) -> tuple[str, str, str]:
        """Wait for the network; returns its variant, the name of its device, and what the masks depend on.

        Raises:
            InputError: the network cannot be loaded.
        """
        kind, *values = self.receive()
        if kind == "failed":
            raise InputError(values[0])
        return tuple(values)

    def send(self, one: Pass) -> None:
        """Ask for a pass. A worker that has ended is started again."""
        if not self._process.is_alive():
            self._start()                   # with a new event: a killed worker may have left the old one locked
            self.wait_until_ready()
        self._stop.clear()
        self._pipe.send(one)

    def receive(self) -> tuple:
        """What the worker sends, see `annotation.worker.work`; raises InputError if it has ended."""
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join()
            raise InputError(WORKER_ENDED) from error

    def stop(self) -> None:
        """Stop the pass after the current frame."""
        self._stop.set()


class Jobs:
    """Starts and stops jobs."""

    def __init__(self, project: Project, worker: Worker):
        self.project, self._worker = project, worker
        self.job: Job | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stop, self._reason = threading.Event(), ""
        self._end: tuple[str, int, str] | None = None       # of the running pass: direction, last frame, dependency

    def propagate(self, direction: str, until: int | None) -> None:
        """Start to propagate: forward from the first input mask, backward from the last one, or both.

        Args:
            until: the last frame of the pass; None: the whole clip.

        Raises:
            InputError: there is no input mask, or none before ``until``; another job is running.
        """
        if until is not None and direction == "both":
            raise InputError("choose forward or backward to propagate up to a frame")
        _check_masks(self.project.masks, direction, until)
        self._start(Job("propagate", direction), lambda job: self._propagate(job, until))

    def export(self, kinds: Sequence[str]) -> None:
        """Start to export.

        Raises:
            InputError: another job is running.
        """
        self._start(Job("export"), lambda job: self._export(job, kinds))

    def stop(self, reason: str = "") -> None:
        """Stop the running job after the current frame."""
        self._reason = reason
        self._stop.set()
        self._worker.stop()

    def close(self) -> None:
        """Stop the running job and wait for it, but not for long."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def stop_if_stale(self) -> None:
        """Stop a propagation if its input masks have changed."""
        end = self._end                         # another thread may replace it
        if end is not None:
            direction, index, depends = end
            if self.project.dependency(direction, index) != depends:
                self.stop("stopped, since a mask that it depends on has changed; propagate again")

    def _start(self, job: Job, run: Callable[[Job], None]) -> None:
        with self._starting:
            if self.job is not None and self.job.status == "running":
                raise InputError(f"the {'export' if self.job.kind == 'export' else 'propagation'} has not ended yet; "
                                 f"stop it first")
            self._stop.clear()
            self.job = job
        self._thread = threading.Thread(target=self._run, args=(job, run), daemon=True)
        self._thread.start()

    def _run(self, job: Job, run: Callable[[Job], None]) -> None:
        try:
            if not self.project.frames.settled.is_set():
                job.message = "reading the clip"
                while not self.project.frames.settled.wait(0.1):
                    self._check_stop()
                job.message = ""
            if self.project.frames.error:
                raise InputError(self.project.frames.error)
            run(job)
            job.status = "done"
        except StoppedError:
            job.message, job.status = self._reason, "stopped"
        except (InputError, OSError) as error:
            job.message, job.status = user_message(error), "failed"
        except Exception as error:
            job.message, job.status = f"{type(error).__name__}: {first_line(error)}", "failed"
            raise

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _propagate(self, job: Job, until: int | None) -> None:
        project = self.project
        with TemporaryDirectory() as folder:                # the worker's copies of the masks do not change
            with project.lock:
                _check_masks(project.masks, job.direction, until)       # they may have changed since the click
                masks = {index: Path(shutil.copy(path, folder)) for index, path in project.masks.items()}
                passes = self._passes(job, Video(project.frames.name, project.frames.reader, masks), until)
            try:
                for one in passes:
                    self._end = one.direction, one.indices[-1], one.depends[-1]
                    self.stop_if_stale()
                    self._run_pass(job, one)
            finally:
                self._end = None            # before the status allows another job
        job.message = f"{pluralize(job.total, 'frame')} propagated" if job.total else "all frames are up to date"

    def _passes(self, job: Job, video: Video, until: int | None) -> list[Pass]:
        """The passes of a propagation that have missing or stale frames."""
        passes = []
        for direction, indices in zip(DIRECTIONS, frame_ranges(video, job.direction), strict=True):
            if until is not None and indices:
                indices = indices[:abs(until - indices[0]) + 1]
            start = self.project.first_missing(direction, indices)
            if start is not None:
                folder = self.project.prediction_file(direction, start).parent
                passes.append(Pass(direction, video, indices, start,
                                   [self.project.dependency(direction, index) for index in indices], folder,
                                   self.project.palette))
                job.total += len(indices) - indices.index(start)
        return passes

    def _run_pass(self, job: Job, one: Pass) -> None:
        self._check_stop()
        self._worker.send(one)
        if self._stop.is_set():             # meanwhile
            self._worker.stop()
        while True:
            kind, *values = self._worker.receive()
            if kind == "frame":
                index, result = values
                if result is None:
                    job.message = f"computing the memory again: frame {index}"
                else:
                    job.message = ""
                    self.project.add_result(one.direction, index, result)
                    job.advance(index)
            elif kind == "failed":
                raise InputError(values[0])
            elif kind == "stopped":
                raise StoppedError
            else:
                return

    def _export(self, job: Job, kinds: Sequence[str]) -> None:
        frames = len(self.project.frames.names)
        job.total = frames * (1 + len(kinds))

        def on_frame() -> None:
            job.advance()
            self._check_stop()
        folder = export(self.project, list(kinds), on_frame)
        states = list(map(self.project.state, range(frames)))
        job.message = f"written to {folder}"
        if "stale" in states:
            job.message += f"; {pluralize(states.count('stale'), 'frame')} out of date: propagate and export again"


def _check_masks(masks: Collection[int], direction: str, until: int | None) -> None:
    """Raise InputError unless there is an input mask to propagate from, up to a frame."""
    if not masks:
        raise InputError("there is no mask to propagate yet; mark an object on a frame first")
    if until is not None and (until < min(masks) if direction == "forward" else until > max(masks)):
        raise InputError(f"no input mask is {'before' if direction == 'forward' else 'after'} frame {until}")


def _work(pipe: Connection, stop: Event, args: argparse.Namespace) -> None:
    """The worker, which imports torch; the server does not."""
    from annotation.worker import work
    work(pipe, stop, args)
