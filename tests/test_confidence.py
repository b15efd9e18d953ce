"""Confidence of masks: the figures, the doubtful frames, and the files of propagate.py --confidence."""
import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from PIL import Image

import propagate as script
from dataset.clip import open_clip
from dataset.image_io import read_mask
from dataset.synthetic import write_clip
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference import propagation
from inference.bidirectional import propagate_clip
from inference.confidence import ObjectConfidence, is_doubtful, merge_confidences, object_confidences
from inference.confidence_report import draw_confidence, write_confidence
from inference.propagation import Prediction, PropagationConfig, Timer
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from util import progress
from util.cli import InputError
from util.palette import davis_palette

FRAMES = 6


def prediction(winners, values, labels):
    """A prediction whose most probable channels (h, w) have these probabilities; its label map is twice as large."""
    winners, values = torch.tensor(winners), torch.tensor(values)
    probabilities = ((1 - values) / 10).repeat(len(labels) + 1, 1, 1).scatter(0, winners[None], values[None])
    label_map = np.array([0, *labels], np.uint8)[winners.numpy()].repeat(2, 0).repeat(2, 1)
    return Prediction(0, label_map, labels, probabilities)


def test_figures_of_several_objects():
    figures = object_confidences(prediction([[0, 1, 1, 1, 3]] * 2, [[0.9, 0.6, 0.9, 0.8, 0.5]] * 2, [7, 9, 2]))
    assert [(row.label, row.area) for row in figures] == [(7, 24), (9, 0), (2, 8)]
    means = [(row.confidence, row.boundary_confidence) for row in figures]
    assert np.allclose(means, [(2.3 / 3, 0.7), (0, 0), (0.5, 0.5)])


def test_only_neighbours_above_below_and_beside_make_a_boundary():
    winners = [[0, 1, 1], [1, 1, 1], [1, 1, 1]]
    values = [[0.9, 0.6, 0.8], [0.7, 0.8, 0.8], [0.8, 0.8, 0.8]]
    figures, = object_confidences(prediction(winners, values, [1]))
    assert figures[:2] == (1, 32)
    assert np.allclose(figures[2:], ((0.6 + 0.7 + 6 * 0.8) / 8, 0.65))
    figures, = object_confidences(prediction([[1, 1], [1, 1]], [[0.5, 0.5], [0.75, 0.75]], [1]))
    assert figures == (1, 16, 0.625, 0)


def figures(label, area, confidence):
    return ObjectConfidence(label, area, confidence, 0.6)


def test_frames_with_a_low_confidence_or_a_lost_object_are_doubtful():
    good, low, lost, other = figures(1, 50, 0.93), figures(1, 50, 0.91), figures(1, 0, 0), figures(2, 9, 0.95)
    assert not is_doubtful(None, [good, other])
    assert is_doubtful(None, [other, low])
    assert is_doubtful([good, other], [lost, other])
    for before in (None, [], [lost, other], [other]):
        assert not is_doubtful(before, [lost, other])
    assert not is_doubtful([good], [figures(1, 500, 0.93)])


def test_merged_figures_are_those_of_the_pass_of_the_pixels():
    merged = merge_confidences([figures(2, 3, 0.9), figures(5, 1, 0.8)], [figures(5, 7, 0.5), figures(1, 6, 0.7)],
                               np.array([[2, 2, 2, 5, 1]], np.uint8))
    assert merged == [figures(1, 1, 0.7), figures(2, 3, 0.9), figures(5, 1, 0.8)]


@pytest.fixture(scope="module")
def lite():
    return load_network(LITE_WEIGHTS)


@pytest.fixture
def clip(tmp_path):
    """A clip with two objects, annotated on frames 1 and 4."""
    write_clip(tmp_path / "clip", frames=FRAMES, height=64, width=96, objects=2, seed=1)
    (tmp_path / "clip/annotated").mkdir()
    for index in (1, 4):
        shutil.copy(tmp_path / f"clip/masks/{index:05d}.png", tmp_path / "clip/annotated")
    return tmp_path / "clip"


@pytest.fixture
def propagate(clip, lite, monkeypatch, capsys):
    """Calls main() for both directions with more flags."""
    def propagate(output, *flags):
        monkeypatch.setattr(sys, "argv", [
            "propagate.py", "--images", str(clip / "frames"), "--masks", str(clip / "annotated"), "--direction", "both",
            "--size", "-1", "--model", "lite", "--device", "cpu", "--output", str(output), *flags])
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1000)
        monkeypatch.setattr(propagation, "load_for_propagation", lambda path, device: lite)
        script.main()
        return capsys.readouterr().out
    return propagate


def test_each_frame_has_the_figures_of_the_nearest_mask(clip, lite, tmp_path):
    video, found = open_clip(None, clip / "frames", clip / "annotated"), {}
    for direction in ("forward", "backward", "both"):
        (tmp_path / direction).mkdir()
        found[direction] = propagate_clip(lite, video, PropagationConfig(), direction, tmp_path / direction,
                                          davis_palette(), Timer(), lambda: None, confidence=True)
    for index, source in enumerate(("backward", "forward", "forward", "backward", "forward", "forward")):
        assert found["both"][index] == found[source][index]
    assert found["forward"][3] != found["backward"][3]


def test_files_of_a_run_agree_with_its_masks(clip, propagate, tmp_path):
    out = tmp_path / "out"
    assert f"confidence: {out}/confidence/confidence.csv\nplot: {out}/confidence/confidence.png" in (
        propagate(out, "--confidence"))
    with (out / "confidence/confidence.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "object", "area", "confidence", "boundary_confidence", "doubtful"]
    assert [(row["frame"], row["object"]) for row in rows] == [
        (f"{index:05d}", str(label)) for index in range(FRAMES) for label in (1, 2)]
    for row in rows:
        assert int(row["area"]) == (read_mask(out / f"{row['frame']}.png") == int(row["object"])).sum()
        annotated, confidence = row["frame"] in ("00001", "00004"), float(row["confidence"])
        assert row["doubtful"] == str(int(confidence < 0.93 and not annotated))
        assert (confidence == 1) == annotated
        assert 0.3 < float(row["boundary_confidence"]) <= confidence
    with Image.open(out / "confidence/confidence.png") as plot:
        assert plot.size == (1200, 360)
        colours = {colour[:3] for _, colour in plot.getcolors(1 << 20)}
    assert {(128, 0, 0), (0, 128, 0)} <= colours
    with pytest.raises(InputError, match="holds masks already"):
        propagate(out)
    propagate(out, "--overwrite")
    assert not (out / "confidence").exists()


def test_annotated_frames_are_never_doubtful(tmp_path):
    video = Video("x", ImageFrames([Path(f"{name}.jpg") for name in ("a", "b", "c, d", "\udcff")]), {1: Path("b.png")})
    rows = [figures(3, 80, 0.8), figures(3, 80, 0.8), figures(3, 80, 0.95), figures(3, 0, 0)]
    write_confidence({index: [row] for index, row in enumerate(rows)}, video, davis_palette(), tmp_path / "new")
    assert (tmp_path / "new/confidence.csv").read_text(errors="surrogateescape") == (
        "frame,object,area,confidence,boundary_confidence,doubtful\n"
        "a,3,80,0.8000,0.6000,1\nb,3,80,0.8000,0.6000,0\n\"c, d\",3,80,0.9500,0.6000,0\n\udcff,3,0,0.0000,0.6000,1\n")


def test_masks_are_kept_if_only_the_confidence_cannot_be_written(propagate, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inference.confidence_report.draw_confidence", fail)
    with pytest.raises(InputError, match="the masks are complete, but the confidence was not written: disk full"):
        propagate(tmp_path / "out", "--confidence")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{index:05d}.png" for index in range(FRAMES)]


def test_without_matplotlib_one_line_says_what_to_install(propagate, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "inference.confidence_report", raising=False)
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError) as error:
        propagate(tmp_path / "out", "--confidence")
    assert str(error.value) == "--confidence needs matplotlib; install it with pip install -r requirements-extras.txt"
    assert not (tmp_path / "out").exists()
    propagate(tmp_path / "out")


def test_a_plot_has_a_row_for_each_object_and_marks_its_frames():
    rows = [(index, figures(label, 10 * label, 0.95), index == label) for index in range(20) for label in range(1, 11)]
    figure = draw_confidence(rows, 20, [0, 13], davis_palette())
    assert len(figure.axes) == 20
    for label in range(1, 11):
        for axis in figure.axes[2 * label - 2:2 * label]:
            doubtful, annotated = (lines for lines in axis.collections if isinstance(lines, LineCollection))
            assert [line[0, 0] for line in doubtful.get_segments()] == [label]
            assert [line[0, 0] for line in annotated.get_segments()] == [0, 13]
        area, confidence = figure.axes[2 * label - 2:2 * label]
        assert area.get_ylabel() == f"object {label}"
        assert area.lines[0].get_ydata().tolist() == [10 * label] * 20
        assert confidence.lines[1].get_ydata().tolist() == [0.95] * 20
