"""Report of scored masks as one HTML file: scores, J and F over time, best and worst frames, settings."""
from __future__ import annotations

import io
import re
import shlex
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import torch
from PIL import Image

from dataset.image_io import read_mask
from dataset.video import Video
from inference.overlay import draw_overlay
from inference.propagation import Run, Timer
from inference.scoring import (
    FrameScore,
    ObjectScore,
    difference,
    format_difference,
    keep_labels,
    mean_scores,
    not_compared,
)
from model.network import PropagationNetwork
from util.cli import extras_for
from util.files import write_atomic

with extras_for("--report"):
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

TEMPLATE = Path(__file__).with_name("report_template.html")
WORST_FRAMES, MAX_IMAGES = 3, 160               # a sequence has its worst frames and the best one
NEIGHBOURS = 10                                 # the worst frames are at least a tenth of the sequence apart
IMAGE_WIDTH, MARGIN, MIN_CROP = 400, 1.5, 0.35  # pixels; size of a crop relative to its objects, and to the frame
COLOURS = {"#010101": "var(--ink)", "#020202": "var(--line)", "#030303": "var(--j)", "#040404": "var(--f)"}
INK, LINE, J, F = COLOURS                       # stand for colours of the page, in light and dark
CLASSES = [((46, 158, 85), "predicted and in the ground truth"),
           ((224, 51, 42), "predicted, but background in the ground truth"),
           ((47, 123, 255), "in the ground truth, but not predicted"),
           ((224, 168, 0), "predicted as another object")]
Format = Callable[[Sequence[ObjectScore], str, str], str]       # mean scores of objects, between two texts each


def write_report(path: Path, title: str, videos: Iterable[tuple[Video, Path]], scores: Sequence[ObjectScore],
                 summary: Mapping[str, str], settings: Mapping[str, object],
                 baseline: Sequence[ObjectScore] | None = None, notes: Iterable[str] = ()) -> None:
    """Write the report, without any reference to other files.

    Args:
        path: the HTML file.
        title: heading.
        videos: the videos with the folders of their predicted masks; those without scores are left out.
        scores: with their frames.
        summary: figures to show beside the mean scores, by their names.
        settings: further rows of the table of settings, by their names.
        baseline: scores to compare with.
        notes: lines to show at the top, before those on what could not be compared.

    Raises:
        InputError: a frame or mask of the best and worst frames cannot be read.
    """
    def format_scores(rows: Sequence[ObjectScore], start: str, end: str) -> str:
        differences = [""] * 3 if baseline is None else map(_difference, difference(rows, baseline))
        return "".join(f"{start}{mean:.1f}{diff}{end}" for mean, diff in zip(mean_scores(rows), differences,
                                                                             strict=True))

    by_video = {}
    for row in scores:
        by_video.setdefault(row.video, []).append(row)
    summary = "".join(f"<div><dt>{escape(name)}</dt><dd>{text}</dd></div>" for name, text in [
        *zip(("J&F", "J", "F"), format_scores(scores, "", "\n").splitlines() if scores else (), strict=False),
        *((name, escape(text)) for name, text in summary.items())])
    if baseline is not None:
        notes = [*notes, "the small numbers are the differences to the baseline", *not_compared(scores, baseline)]
    settings = {**settings, "command": shlex.join(sys.argv), "PyTorch": torch.__version__,
                "written": f"{datetime.now():%Y-%m-%d %H:%M}"}
    write_atomic(path, Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title), summary=summary,
        notes="".join(f'<p class="warning">{escape(note)}</p>' for note in notes),
        scores=_score_table(by_video, format_scores) if scores else "<p>No video has ground truth to score.</p>",
        sequences=_sequences(videos, by_video, format_scores) if scores else "",
        settings="".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
                         for name, value in settings.items())))


def settings_rows(network: PropagationNetwork, weights: Path, settings: Mapping[str, object]) -> dict[str, object]:
    """The rows of a report on the settings of a run, as of `inference.evaluation.run_settings`."""
    return {"network": network.variant, "weights file": weights, "weights": f"crc32:{settings['model']}",
            **{name: value for name, value in settings.items() if name != "model"}}


def speed_and_memory(runs: Iterable[Run]) -> dict[str, str]:
    """The figures of a report on how its masks were made."""
    timers, peaks = defaultdict(Timer), {}
    for run in runs:
        timer = timers[f"speed per process, {run.processes} on {run.device}" if run.processes > 1 else
                       f"speed on {run.device}"]
        timer.seconds, timer.frames = timer.seconds + run.seconds, timer.frames + run.frames
        for place, size in run.memory.items():
            peaks[f"peak memory, {place}"] = max(size, peaks.get(f"peak memory, {place}", 0))
    return {**{name: f"{timer.frames / timer.seconds:.2f} frames/s" for name, timer in timers.items() if timer.frames},
            **{name: f"{size / 1e9:.2f} GB" for name, size in peaks.items()}}


def _difference(value: float) -> str:
    if np.isnan(value):
        return " <small>–</small>"
    text = format_difference(value)
    kind = {"+": "better", "-": "worse"}[text[0]] if float(text) else ""
    return f' <small class="{kind}">{text}</small>'


def _score_table(by_video: Mapping[str, Sequence[ObjectScore]], format_scores: Format) -> str:
    """Rows of the sequences, of their objects if there are several, and of the mean over all objects."""
    def row(kind: str, name: str, objects: Sequence[ObjectScore], frames: int | str) -> str:
        bar = f' style="--value: {mean_scores(objects)[0]:.1f}%"'
        return (f'<tr class="{kind}"{bar}><td>{name}</td>{format_scores(objects, "<td>", "</td>")}'
                f"<td>{frames}</td></tr>")

    rows = [row("overall", "overall", [row for rows in by_video.values() for row in rows], "")]
    for number, (name, objects) in enumerate(by_video.items()):
        rows.append(row("", f'<a href="#sequence{number}">{escape(name)}</a>', objects,
                        max(len(row.frames) for row in objects)))
        if len(objects) > 1:
            rows += [row("object", f"object {single.label}", [single], len(single.frames)) for single in objects]
    head = "".join(f"<th>{name}</th>" for name in ("sequence", "J&amp;F", "J", "F", "frames"))
    note = ("Means over the objects of each sequence and, as overall, over all objects, in percent. "
            "Frames: the number of those that count.")
    return f'<div class="scores"><table><tr>{head}</tr>{"".join(rows)}</table></div><p class="note">{note}</p>'


def _sequences(videos: Iterable[tuple[Video, Path]], by_video: Mapping[str, Sequence[ObjectScore]],
               format_scores: Format) -> str:
    """Plot and frames of each sequence, in the order of the scores from the lowest one."""
    numbers = {name: number for number, name in enumerate(by_video)}
    scored = sorted(((video, folder) for video, folder in videos if video.name in by_video),
                    key=lambda pair: mean_scores(by_video[pair[0].name])[0])
    legend = "".join(f'<span><i style="background: rgb{colour}"></i>{text}</span>' for colour, text in CLASSES)
    parts = [f'<h2>Sequences, lowest J&amp;F first</h2><p class="legend">{legend}'
             f"<span>circles: frames shown</span></p>"]
    with_images = MAX_IMAGES // (WORST_FRAMES + 1)
    for position, (video, folder) in enumerate(scored):
        rows = by_video[video.name]
        frames = frame_means(rows)
        shown = chosen_frames(frames) if position < with_images else []
        images = "".join(_image(video, folder, rows, frame, kind) for kind, frame in shown)
        values = format_scores(rows, "<span>{} ", "</span>").format("J&amp;F", "J", "F")
        parts.append(f'<section id="sequence{numbers[video.name]}"><h3>{escape(video.name)}{values}</h3>'
                     f'<div class="parts">{draw_scores(rows, [frame.index for _, frame in shown])}'
                     f'<div class="frames">{images}</div></div></section>')
    if len(scored) > with_images:
        parts.append(f'<p class="note">Frames are shown for the {with_images} lowest sequences only.</p>')
    return "".join(parts)


def frame_means(scores: Iterable[ObjectScore]) -> list[FrameScore]:
    """The mean J and F over the objects of a video that count on a frame, for each frame."""
    by_index = {}
    for row in scores:
        for frame in row.frames:
            by_index.setdefault(frame.index, []).append(frame[1:])
    return [FrameScore(index, *np.mean(values, 0).tolist()) for index, values in sorted(by_index.items())]


def chosen_frames(frames: Sequence[FrameScore]) -> list[tuple[str, FrameScore]]:
    """The frames to show: the worst ones that are not close to each other, then the best one."""
    ranked, worst = sorted(frames, key=lambda frame: frame.j + frame.f), []
    for frame in ranked[:-1]:
        if len(worst) < WORST_FRAMES and all(abs(frame.index - other.index) >= len(frames) / NEIGHBOURS
                                             for other in worst):
            worst.append(frame)
    return [*(("worst", frame) for frame in worst), ("best", ranked[-1])]


def _image(video: Video, folder: Path, scores: Sequence[ObjectScore], frame: FrameScore, kind: str) -> str:
    name = video.frames.names[frame.index]
    labels = [row.label for row in scores if any(frame.index == other.index for other in row.frames)]
    ground_truth, prediction = video.labels(video.ground_truth / f"{name}.png"), read_mask(folder / f"{name}.png")
    classes = error_classes(keep_labels(prediction, labels), keep_labels(ground_truth, labels))
    pixels = next(video.frames.read([frame.index], workers=0))
    palette = b"".join(map(bytes, [(0, 0, 0), *(colour for colour, _ in CLASSES)])).ljust(768, b"\0")
    overlay, jpeg = Image.fromarray(draw_overlay(pixels, classes, palette)), io.BytesIO()
    size = IMAGE_WIDTH, max(1, round(IMAGE_WIDTH * overlay.height / overlay.width))
    overlay.resize(size, Image.Resampling.BICUBIC, crop_box(classes)).save(jpeg, "JPEG", quality=82)
    return (f'<figure><img alt="{kind} frame {escape(name)} of {escape(video.name)}" loading="lazy" '
            f'src="data:image/jpeg;base64,{b64encode(jpeg.getvalue()).decode()}">'
            f"<figcaption>{kind}: {escape(name)}, J&nbsp;{frame.j:.1f}, F&nbsp;{frame.f:.1f}</figcaption></figure>")


def error_classes(prediction: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """The class of each pixel of two label maps (H, W): 0 is background in both, the others are `CLASSES`."""
    equal, absent, missed = prediction == ground_truth, ground_truth == 0, prediction == 0
    return np.select([equal & absent, equal, absent, missed], range(4), len(CLASSES)).astype(np.uint8)


def crop_box(classes: np.ndarray) -> tuple[int, int, int, int]:
    """The part (left, top, right, bottom) of a frame to show, at its aspect ratio: the non-zero pixels and a margin."""
    shape, pixels = np.array(classes.shape), np.argwhere(classes)
    if not len(pixels):
        return 0, 0, int(shape[1]), int(shape[0])
    first, last = pixels.min(0), pixels.max(0) + 1
    height, width = size = np.rint(shape * min(1, max(MIN_CROP, MARGIN * max((last - first) / shape)))).astype(int)
    top, left = np.clip((first + last - size) // 2, 0, shape - size)
    return int(left), int(top), int(left + width), int(top + height)


def draw_scores(scores: Sequence[ObjectScore], marked: Iterable[int] = ()) -> str:
    """The mean J and F of the objects of a video over its frames, as an SVG element; marked frames have a circle."""
    frames = np.array(frame_means(scores))
    marked = np.isin(frames[:, 0], list(marked))
    figure = Figure((5.6, 3.5))
    axes = figure.add_axes((0.08, 0.15, 0.9, 0.82))         # an automatic layout takes three times as long
    style = ".-" if len(frames) < 25 else "-"
    for column, name, colour in ((1, "J", J), (2, "F", F)):
        axes.plot(frames[:, 0], frames[:, column], style, color=colour, label=name)
        axes.plot(frames[marked, 0], frames[marked, column], "o", color=colour, fillstyle="none")
    axes.set(xlabel="frame", ylim=(-3, 103))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=LINE)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    axes.xaxis.label.set_color(INK)
    axes.legend(loc="lower left", ncols=2, frameon=False, labelcolor=INK)
    svg = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": ascii(scores[0].video), "font.size": 11}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r' id="[\w.]+_\d+"', "", svg.getvalue()[svg.getvalue().index("<svg"):])
    return re.sub("|".join(COLOURS), lambda match: COLOURS[match[0]], text)
