"""J (region similarity) and F (boundary accuracy) as DAVIS measures them, by the vos-benchmark package."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import util.opencv  # noqa: F401  (vos-benchmark wants it: first_line before the work, not after)
from dataset.image_io import read_mask
from dataset.video import Video
from util.cli import InputError, warn
from util.files import write_atomic


class ObjectScore(NamedTuple):
    """One object's scores in percent."""
    video: str
    label: int
    j: float
    f: float


def score_video(video: Video, folder: Path) -> list[ObjectScore]:
    """The scores of the masks in ``folder`` against the video's truth; first and last frame do not count."""
    from vos_benchmark.evaluator import Evaluator  # loads SciPy and scikit-image: only where it is needed

    evaluator = Evaluator(name=video.name)
    for name in video.frames.names[1:-1]:
        truth, found = video.labels(video.ground_truth / f"{name}.png"), read_mask(folder / f"{name}.png")
        if truth.shape != found.shape:
            raise InputError(f"{video.ground_truth}/{name}.png: the true mask is {truth.shape[1]}x{truth.shape[0]} pixels, "
                             f"its frame {found.shape[1]}x{found.shape[0]}")
        evaluator.feed_frame(found, truth)
    j, f = evaluator.conclude()
    return [ObjectScore(video.name, label, float(j[label]), float(f[label])) for label in sorted(j)]


def score(videos: list[Video], output: Path, workers: int, done: Callable[[], None]) -> list[ObjectScore]:
    """The scores of several videos' masks in ``output/<video>``; ``done`` is called after each.

    A video whose true masks cannot be used is left out with a warning.
    """
    def try_video(video: Video) -> list[ObjectScore]:
        try:
            return score_video(video, output / video.name)
        except InputError as error:
            warn(f"{video.name} is not scored: {error}")
            return []

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        scores = []
        for objects in pool.map(try_video, videos):
            scores += objects
            done()
        return scores


def table(scores: list[ObjectScore]) -> str:
    """By video, the mean of its objects; overall, the mean of all objects, as the benchmark defines it."""
    width = max(len("overall"), *(len(row.video) for row in scores))
    lines = [f"{'sequence':<{width}}  J&F    J      F"]
    for name in [*dict.fromkeys(row.video for row in scores), None]:
        rows = [row for row in scores if name in (None, row.video)]
        j, f = np.mean([row.j for row in rows]), np.mean([row.f for row in rows])
        lines.append(f"{name or 'overall':<{width}}  {(j + f) / 2:5.1f}  {j:5.1f}  {f:5.1f}")
    return "\n".join(lines)


def write_csv(scores: list[ObjectScore], path: Path) -> None:
    """Every object's scores."""
    rows = [f"{row.video},{row.label},{(row.j + row.f) / 2:.3f},{row.j:.3f},{row.f:.3f}" for row in scores]
    write_atomic(path, "\n".join(["sequence,object,J&F,J,F", *rows, ""]))
