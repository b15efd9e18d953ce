"""Scores of predicted masks: J (region similarity) and F (contour accuracy) as DAVIS defines them."""
from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset.image_io import check_regular_file, read_mask
from dataset.video import Video
from util.cli import InputError, warn
from util.files import write_atomic
from util.parallel import map_in_threads
from util.progress import progress_bar


class FrameScore(NamedTuple):
    """The scores of one object on one frame in percent. ``index``: of the frame, from 0."""
    index: int
    j: float
    f: float


class ObjectScore(NamedTuple):
    """The scores of one object in percent: the means over ``frames``, which are empty if only the means are known."""
    video: str
    label: int
    j: float
    f: float
    frames: tuple[FrameScore, ...] = ()


def score_video(video: Video, folder: Path, direction: str = "forward") -> list[ObjectScore]:
    """The scores of the masks in ``folder``, for each object of the video's input masks.

    As in the official semi-supervised evaluation of DAVIS 2017, the first and the last frame with ground truth are left
    out, and J and F of a frame are 1 where an object is neither annotated nor predicted. An object counts on the frames
    that the propagation in ``direction`` reaches: forward, those after the first input mask that shows it; backward,
    those before the last one; both, all that have no input mask.

    Raises InputError if a mask is missing or has another size than its ground truth.
    """
    from vos_benchmark.evaluator import Evaluator  # takes 0.7 s: it loads SciPy and scikit-image

    names = video.frames.names
    objects = {index: np.unique(video.labels(path)).tolist() for index, path in video.masks.items()}
    annotated = [index for index, name in enumerate(names) if (video.ground_truth / f"{name}.png").is_file()]
    evaluator = Evaluator()
    scored = []
    for index in annotated[1:-1][::-1 if direction == "backward" else 1]:
        labels = sorted({label for start, found in objects.items() for label in found if label and
                         (direction == "both" or (start > index if direction == "backward" else start < index))})
        if not labels or (direction == "both" and index in video.masks):
            continue
        path = video.ground_truth / f"{names[index]}.png"
        ground_truth, prediction = video.labels(path), read_mask(folder / path.name)
        if ground_truth.shape != prediction.shape:
            (height, width), (rows, columns) = ground_truth.shape, prediction.shape
            raise InputError(f"{path}: {width}x{height} pixels, but the predicted mask has {columns}x{rows}")
        # By itself, the package scores an object from the first frame on that shows it or has it predicted.
        evaluator.objects_in_gt.update(labels)
        evaluator.feed_frame(keep_labels(prediction, labels), keep_labels(ground_truth, labels))
        scored.append(index)
    j, f = evaluator.conclude()
    if j and len(annotated) < len(names):
        warn(f"{video.ground_truth}: {len(names) - len(annotated)} of {len(names)} frames have no ground truth and are "
             f"not scored")
    frames = {}
    for label in j:             # an object has values from its first frame on
        values = zip(evaluator.object_iou[label], evaluator.boundary_f[label], strict=True)
        indices = scored[-len(evaluator.object_iou[label]):]
        frames[label] = tuple(sorted(FrameScore(index, 100 * float(frame_j), 100 * float(frame_f))
                                     for index, (frame_j, frame_f) in zip(indices, values, strict=True)))
    return [ObjectScore(video.name, label, float(j[label]), float(f[label]), frames[label]) for label in sorted(j)]


def keep_labels(mask: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The mask (H, W) with other labels than these as background."""
    return np.where(np.isin(mask, labels), mask, 0)


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


def mean_scores(scores: Sequence[ObjectScore]) -> np.ndarray:
    """The mean J&F, J and F over objects: (3,) percent."""
    j, f = np.mean([(row.j, row.f) for row in scores], 0)
    return np.array([(j + f) / 2, j, f])


def difference(scores: Sequence[ObjectScore], baseline: Sequence[ObjectScore]) -> np.ndarray:
    """`mean_scores` minus those of the baseline, over the objects that both have; NaN if there are none."""
    other = {(row.video, row.label): row for row in baseline}
    common = [(row, other[row.video, row.label]) for row in scores if (row.video, row.label) in other]
    return np.subtract(*map(mean_scores, zip(*common, strict=True))) if common else np.full(3, np.nan)


def not_compared(scores: Sequence[ObjectScore], baseline: Sequence[ObjectScore]) -> list[str]:
    """Lines that name the sequences, or single objects of a sequence, that only one of the two has."""
    lines = []
    for place, ours, theirs in (("the baseline", scores, baseline), ("this run", baseline, scores)):
        objects, videos = {(row.video, row.label) for row in theirs}, {row.video for row in theirs}
        names = dict.fromkeys(row.video if row.video not in videos else f"{row.video} (object {row.label})"
                              for row in ours if (row.video, row.label) not in objects)
        if names:
            lines.append(f"not in {place}, so not compared: {', '.join(names)}")
    return lines


def format_difference(value: float) -> str:
    """A difference with its sign and one decimal, never -0.0; a dash for NaN."""
    return "-" if np.isnan(value) else f"{round(value, 1) + 0.0:+.1f}"


def table(scores: list[ObjectScore], baseline: Sequence[ObjectScore] | None = None) -> str:
    """The mean over the objects of each video and, as DAVIS defines the overall score, over all objects.

    With a baseline, each line has the differences to it, and the last lines name what could not be compared.
    """
    width = max(len("overall"), *(len(row.video) for row in scores))
    columns = "" if baseline is None else "   diff J&F       J       F"
    lines = [f"{'sequence':<{width}}  J&F    J      F{columns}"]
    for name in [*dict.fromkeys(row.video for row in scores), None]:
        rows = [row for row in scores if name in (None, row.video)]
        line = f"{name or 'overall':<{width}}  " + "  ".join(f"{mean:5.1f}" for mean in mean_scores(rows))
        if baseline is not None:
            line += "   " + "".join(f"{format_difference(value):>8}" for value in difference(rows, baseline))
        lines.append(line)
    return "\n".join(lines + ([] if baseline is None else not_compared(scores, baseline)))


def write_csv(scores: list[ObjectScore], path: Path, network: str, checksum: str) -> None:
    """Write one line per object, with the name of the network and the CRC-32 of its weights file in hexadecimal."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sequence", "object", "J&F", "J", "F", "network", "weights"])
    writer.writerows([row.video, row.label, *(f"{value:.3f}" for value in ((row.j + row.f) / 2, row.j, row.f)), network,
                      f"crc32:{checksum}"] for row in scores)
    write_atomic(path, text.getvalue())


def read_csv(path: Path) -> list[ObjectScore]:
    """The scores of an earlier run, written by `write_csv`; raises InputError if the file is not such a table."""
    check_regular_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [ObjectScore(row["sequence"], int(row["object"]), float(row["J"]), float(row["F"]))
                    for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a scores.csv of the benchmark scripts") from error
    if not rows:
        raise InputError(f"{path}: has no scores")
    counts = Counter((row.video, row.label) for row in rows)
    for row in rows:
        if counts[row.video, row.label] > 1:
            raise InputError(f"{path}: {row.video}, object {row.label}: listed twice")
        if not (0 <= row.j <= 100 and 0 <= row.f <= 100):
            raise InputError(f"{path}: {row.video}, object {row.label}: has scores that are not between 0 and 100")
    return rows
