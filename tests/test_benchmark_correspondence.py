"""``scripts/benchmark_correspondence.py``: the accuracy is right, and lite is better than no network."""
import sys

import numpy as np
import pytest

from dataset.synthetic import write_clip
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference.correspondence_accuracy import accuracy, compare_methods, match_by_colour, sample_points, table
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from scripts import benchmark_correspondence
from util.cli import InputError


def test_points_are_spread_over_the_object():
    mask = np.zeros((120, 200), bool)
    mask[20:100, 30:130] = True
    points = sample_points(mask, 80, seed=1)
    assert 60 <= len(points) <= 100
    assert all(mask[y, x] for x, y in points)
    quarters = [sum(x >= 80 for x, y in points), sum(y >= 60 for x, y in points)]
    assert all(0.4 < count / len(points) < 0.6 for count in quarters)
    assert points == sample_points(mask, 80, seed=1) != sample_points(mask, 80, seed=2)
    assert sample_points(mask[:21, :33], 100, seed=0) == [(30, 20), (31, 20), (32, 20)]


def test_a_point_must_be_matched_to_its_own_object():
    source, target = np.zeros((10, 10), int), np.zeros((10, 10), int)
    source[:, :5], source[:, 5:] = 1, 2
    target[:, :5], target[:, 5:] = 1, 1
    points = [(1, 1), (2, 8), (7, 3), (8, 8)]
    assert accuracy(lambda x, y: (x, y), points, source, target) == 0.5
    assert accuracy(lambda x, y: (0, 0), points, source, target) == 0.5
    assert accuracy(lambda x, y: (0, 0), points, source, source) == 0.5
    assert accuracy(lambda x, y: (9 - x, y), points, source, source) == 0


def test_colours_are_means_of_locations_without_their_padding():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    match = match_by_colour(image, np.roll(image, (16, -32), (0, 1)))
    assert match(70, 20) == ((70 // 16 - 2) * 16 + 8, (20 // 16 + 1) * 16 + 8)
    # 4 pixels less on the left and 6 on top are padded, so the locations are the same.
    smaller = match_by_colour(image[6:-6, 4:-4], image[6:-6, 4:-4])
    assert smaller(0, 0) == (8 - 4, 8 - 6)
    assert smaller(60, 40) == (64 + 8 - 4, 32 + 8 - 6)


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


def test_the_network_matches_better_than_colours(davis):
    frames = ImageFrames(sorted((davis / "JPEGImages/480p/drawn").iterdir()))
    video = Video("drawn", frames, ground_truth=davis / "Annotations/480p/drawn")
    near, far = compare_methods(load_network(LITE_WEIGHTS), video, (5, 15, 40), 40, seed=0)     # no frame 40
    assert near.network > 0.9
    assert far.network > 0.2 + max(far.same_place, far.colour)
    labels = video.labels(davis / "Annotations/480p/drawn/00015.png") > 0
    assert far.chance == pytest.approx(labels.mean())


def test_the_table_and_the_command(davis, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--davis", str(davis), "--model", str(LITE_WEIGHTS), "--to", "5",
                                      "--points", "10"])
    benchmark_correspondence.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["network:", "sequence", "drawn", "mean"]
    assert all(0 <= float(ratio) <= 100 for ratio in lines[2].split()[1:])
    assert "50.0" in table({"a": [(1, 0, 0, 0), (0, 0, 0, 0)]})
    monkeypatch.setattr(sys, "argv", ["x", "--davis", str(davis), "--model", str(LITE_WEIGHTS), "--to", "50"])
    with pytest.raises(InputError, match="no video has ground truth"):
        benchmark_correspondence.main()
