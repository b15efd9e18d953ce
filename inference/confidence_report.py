"""Confidence of the masks of a clip as a CSV file and as a plot."""
from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset.video import Video
from inference.confidence import MIN_CONFIDENCE, ObjectConfidence, is_doubtful
from inference.results import CONFIDENCE_FILES
from util.cli import extras_for

with extras_for("--confidence"):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import EngFormatter, MaxNLocator

WIDTH, ROW_HEIGHT, SINGLE_ROW_HEIGHT, MARGINS = 12, 1.2, 2.6, 1        # inches
POINTS_ACROSS = 380             # width of the axes in 1/72 inch
DOUBTFUL, ANNOTATED, DARK = "#ffd27f", "#1f6fd0", "#303030"


def write_confidence(confidences: Mapping[int, Sequence[ObjectConfidence]], video: Video, palette: bytes,
                     folder: Path) -> None:
    """Write the figures of all frames with a mask, by frame index, to ``folder`` as a CSV file and as a plot.

    Annotated frames are never doubtful.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, plot = (folder / name for name in CONFIDENCE_FILES)
    rows = [(index, figures, index not in video.masks and is_doubtful(confidences.get(index - 1), [figures]))
            for index in sorted(confidences) for figures in sorted(confidences[index])]
    with table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "object", "area", "confidence", "boundary_confidence", "doubtful"])
        for index, (label, area, confidence, boundary), doubtful in rows:
            writer.writerow([video.frames.names[index], label, area, f"{confidence:.4f}", f"{boundary:.4f}",
                             int(doubtful)])
    draw_confidence(rows, len(video.frames.names), video.masks, palette).savefig(plot, dpi=100)


def draw_confidence(rows: Sequence[tuple[int, ObjectConfidence, bool]], frames: int, annotated: Collection[int],
                    palette: bytes) -> Figure:
    """A plot of (frame index, figures, doubtful) with a row per object: area on the left, confidence on the right."""
    labels = sorted({figures.label for _, figures, _ in rows})
    height = max(SINGLE_ROW_HEIGHT, ROW_HEIGHT * len(labels)) + MARGINS
    figure = Figure((WIDTH, height))        # with a fixed layout: Matplotlib takes longer to find one than to draw
    figure.subplots_adjust(0.065, 0.5 / height, 0.99, 1 - 0.6 / height, wspace=0.1, hspace=0.2)
    axes = figure.subplots(len(labels), 2, sharex=True, squeeze=False)
    axes[0, 0].set_xlim(-0.5 - frames / 100, frames - 0.5 + frames / 100)
    lowest = min((figures.boundary_confidence for _, figures, _ in rows if figures.area), default=1)
    outline = [withStroke(linewidth=2.6, foreground=DARK)]
    for label, pair in zip(labels, axes, strict=True):
        own = {index: (figures, doubtful) for index, figures, doubtful in rows if figures.label == label}
        series = np.full((frames, 3), np.nan)
        for index, (figures, _) in own.items():
            series[index] = figures[1:] if figures.area else (0, np.nan, np.nan)
        colour = np.frombuffer(palette, np.uint8).reshape(256, 3)[label] / 255
        area, confidence = pair
        area.fill_between(range(frames), series[:, 0], color=0.7 * colour + 0.3, linewidth=0)
        area.plot(series[:, 0], color=DARK, linewidth=1)
        confidence.axhline(MIN_CONFIDENCE, color=DOUBTFUL, linewidth=1)
        confidence.plot(series[:, 1], color=colour, linewidth=1.6, path_effects=outline)
        confidence.plot(series[:, 2], color=DARK, linewidth=1, linestyle=":")
        for axis in pair:
            across = {"ymin": 0, "ymax": 1, "transform": axis.get_xaxis_transform()}
            axis.vlines([index for index, (_, doubtful) in own.items() if doubtful], colors=DOUBTFUL, zorder=0,
                        linewidth=max(1.5, POINTS_ACROSS / frames), antialiased=False, **across)
            axis.vlines(sorted(annotated), colors=ANNOTATED, linestyle="--", **across)
            axis.spines[["top", "right"]].set_visible(False)
        area.set_ylabel(f"object {label}")
        area.set_ylim(0, 1.05 * max(10, np.nanmax(series[:, 0])))
        area.yaxis.set_major_formatter(EngFormatter(sep=""))
        confidence.set_ylim(min(0.5, lowest), 1.02)
    figure.align_ylabels(axes[:, 0])
    for axis, title in zip(axes[0], ("area (pixels)", "confidence"), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("frame, counted from 0")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles=[Line2D([], [], color=DARK, linewidth=2.6, label="confidence"),
                           Line2D([], [], color=DARK, linestyle=":", label="boundary confidence"),
                           Line2D([], [], color=ANNOTATED, linestyle="--", label="annotated frame"),
                           Patch(color=DOUBTFUL, label="doubtful frame"),
                           Line2D([], [], color=DOUBTFUL, label=f"confidence of {MIN_CONFIDENCE}")],
                  loc="upper center", ncols=5, frameon=False)
    return figure
