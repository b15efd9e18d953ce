"""Scores of predicted masks: J (region similarity) and F (boundary accuracy) as DAVIS defines them."""
from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.image_io import read_mask
from dataset.video import Video
from util.cli import InputError, warn
from util.files import write_atomic
from util.parallel import map_in_threads
from util.progress import progress_bar


class ObjectScore(NamedTuple):
    """The scores of one object in percent."""
    video: str
    label: int
    j: float
    f: float


def score_video(video: Video, folder: Path) -> list[ObjectScore]:
    """The scores of the masks in ``folder``, for each object of the video's input masks.

    As in the official semi-supervised evaluation of DAVIS 2017, the first and the last frame with ground truth are left
    out, and J and F of a frame are 1 where an object is neither annotated nor predicted. An object counts on the frames
    after the first input mask that shows it.
    """
    from vos_benchmark.evaluator import Evaluator  # takes 0.7 s: it loads SciPy and scikit-image

    names = video.frames.names
    objects = {index: np.unique(video.labels(path)).tolist() for index, path in video.masks.items()}
    annotated = [index for index, name in enumerate(names) if (video.ground_truth / f"{name}.png").is_file()]
    evaluator = Evaluator()
    for index in annotated[1:-1]:
        labels = sorted({label for first, found in objects.items() if first < index for label in found if label})
        if not labels:
            continue
        path = video.ground_truth / f"{names[index]}.png"
        ground_truth, prediction = video.labels(path), read_mask(folder / path.name)
        if ground_truth.shape != prediction.shape:
            (height, width), (rows, columns) = ground_truth.shape, prediction.shape
            raise InputError(f"{path}: {width}x{height} pixels, but the predicted mask has {columns}x{rows}")
        # By itself, the package scores an object from the first of these frames on that shows it, if any does.
        evaluator.objects_in_gt.update(labels)
        evaluator.feed_frame(prediction, np.where(np.isin(ground_truth, labels), ground_truth, 0))
    j, f = evaluator.conclude()
    if j and len(annotated) < len(names):
        warn(f"{video.ground_truth}: {len(names) - len(annotated)} of {len(names)} frames have no ground truth and are "
             f"not scored")
    return [ObjectScore(video.name, label, float(j[label]), float(f[label])) for label in sorted(j)]


def score(videos: list[Video], output: Path, workers: int) -> list[ObjectScore]:
    """The scores of the masks in ``output/<video>``; a video whose masks cannot be used is left out with a warning."""
    def score_or_warn(video: Video) -> list[ObjectScore]:
        try:
            return score_video(video, output / video.name)
        except InputError as error:
            warn(f"{video.name} is not scored: {error}")
            return []

    videos, scores = [video for video in videos if video.ground_truth], []
    with progress_bar(len(videos), "videos") if videos else nullcontext() as bar:
        for objects in map_in_threads(score_or_warn, videos, workers):
            scores += objects
            bar.increment()
    return scores


def table(scores: list[ObjectScore]) -> str:
    """The mean over the objects of each video and, as DAVIS defines the overall score, over all objects."""
    width = max(len("overall"), *(len(row.video) for row in scores))
    lines = [f"{'sequence':<{width}}  J&F    J      F"]
    for name in [*dict.fromkeys(row.video for row in scores), None]:
        rows = [row for row in scores if name in (None, row.video)]
        j, f = np.mean([row.j for row in rows]), np.mean([row.f for row in rows])
        lines.append(f"{name or 'overall':<{width}}  {(j + f) / 2:5.1f}  {j:5.1f}  {f:5.1f}")
    return "\n".join(lines)


def write_csv(scores: list[ObjectScore], path: Path, network: str, checksum: str) -> None:
    """Write one line per object, with the name of the network and the CRC-32 of its weights file in hexadecimal."""
    rows = [f"{row.video},{row.label},{(row.j + row.f) / 2:.3f},{row.j:.3f},{row.f:.3f},{network},crc32:{checksum}"
            for row in scores]
    write_atomic(path, "\n".join(["sequence,object,J&F,J,F,network,weights", *rows, ""]))
