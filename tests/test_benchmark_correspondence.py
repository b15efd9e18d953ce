"""``scripts/benchmark_correspondence.py``: the percentages are right, and lite is better than no network."""
import sys

import numpy as np
import pytest

from dataset.image_io import read_mask
from dataset.synthetic import write_clip
from model.defaults import LITE_WEIGHTS
from scripts import benchmark_correspondence
from util.cli import InputError


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    """A drawn clip, laid out as DAVIS 2016."""
    root = tmp_path_factory.mktemp("DAVIS")
    write_clip(root / "clip", frames=16, height=240, width=426, objects=2, seed=3)
    for name, kind in (("frames", "JPEGImages"), ("masks", "Annotations")):
        (root / kind / "480p").mkdir(parents=True)
        (root / "clip" / name).rename(root / kind / "480p/drawn")
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("/JPEGImages/480p/drawn/00000.jpg /Annotations/480p/drawn/00000.png\n")
    return root


@pytest.fixture
def run(davis, capsys, monkeypatch):
    """Runs the script and returns the percentages of each row."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["x", "--davis", str(davis), "--model", str(LITE_WEIGHTS), *arguments])
        benchmark_correspondence.main()
        rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
        return {name: [float(value) for value in values] for name, *values in rows}
    return run


@pytest.mark.slow
def test_the_network_matches_better_than_the_same_place(davis, run):
    masks = davis / "Annotations/480p/drawn"
    first, later = (read_mask(masks / f"{index:05d}.png") > 0 for index in (0, 15))
    rows = run("--to", "15", "40")                       # there is no frame 40
    assert rows["drawn"] == rows["mean"]
    network, same_place, by_chance = rows["drawn"]
    assert network > 20 + same_place
    assert same_place == pytest.approx(100 * later[first].mean(), abs=12)     # of 100 points, not of all pixels
    assert by_chance == pytest.approx(100 * later.mean(), abs=0.05)
    assert run("--to", "5")["drawn"][0] > 80


def test_points_are_on_the_object_and_matched_to_it(davis, run, monkeypatch):
    mask = read_mask(davis / "Annotations/480p/drawn/00000.png") > 0
    points = []

    class Identity:
        def __init__(self, *_):
            pass

        def find(self, x, y):
            points.append((y, x))
            return x, y
    monkeypatch.setattr("inference.correspondence_viewer.correspond", Identity)
    network, same_place, _ = run("--to", "5")["drawn"]
    assert network == same_place > 0
    assert len(set(points)) == 100
    assert np.mean([mask[point] for point in points]) == 1


def test_videos_without_a_later_object_are_refused(run):
    with pytest.raises(InputError, match="no video has ground truth"):
        run("--to", "50")
