"""J and F against their definition, and the frames and objects that count."""
from pathlib import Path

import numpy as np
import pytest

from dataset.image_io import write_mask
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference.scoring import ObjectScore, score_video, table, write_csv
from util.palette import davis_palette

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def evaluate(tmp_path):
    """Scores a video of label maps; None writes no file. The input masks are ground truth of the frames ``masks``."""
    def evaluate(ground_truth, predictions, masks=(0,), **options):
        for kind, maps in (("ground_truth", ground_truth), ("predictions", predictions)):
            (tmp_path / kind).mkdir()
            for index, labels in enumerate(maps):
                if labels is not None:
                    write_mask(tmp_path / kind / f"{index:05d}.png", np.uint8(labels), davis_palette())
        folder = tmp_path / "ground_truth"
        frames = ImageFrames([Path(f"{index:05d}.jpg") for index in range(len(ground_truth))])
        video = Video("v", frames, {index: folder / f"{index:05d}.png" for index in masks}, folder, **options)
        return {row.label: (row.j, row.f) for row in score_video(video, tmp_path / "predictions")}
    return evaluate


def boundary(mask):
    """The pixels that differ from their right, lower or lower right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), "edge")
    return np.argwhere((mask != padded[1:, :-1]) | (mask != padded[:-1, 1:]) | (mask != padded[1:, 1:]))


def dense_j(ground_truth, prediction):
    union = (ground_truth | prediction).sum()
    return (ground_truth & prediction).sum() / union if union else 1


def dense_f(ground_truth, prediction):
    ours, theirs = boundary(prediction), boundary(ground_truth)
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    radius = np.ceil(0.008 * np.hypot(HEIGHT, WIDTH))
    near = np.linalg.norm(ours[:, None] - theirs[None], axis=2) <= radius
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0


def test_agrees_with_the_definition(evaluate):
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]

    def draw(label_map, label):
        cy, cx, radius = generator.uniform((0, 0, 3), (HEIGHT, WIDTH, 20))
        label_map[np.hypot(y - cy, x - cx) < radius] = label
        return label_map

    ground_truth = [draw(draw(np.zeros((HEIGHT, WIDTH), int), 1), 2) for _ in range(8)]
    predictions = [np.roll(draw(labels.copy(), 1), 1, axis=index % 2) for index, labels in enumerate(ground_truth)]
    scores = evaluate(ground_truth, predictions)
    for label in (1, 2):
        pairs = [(g == label, p == label) for g, p in zip(ground_truth[1:-1], predictions[1:-1], strict=True)]
        expected = [100 * np.mean([measure(*pair) for pair in pairs]) for measure in (dense_j, dense_f)]
        assert scores[label] == pytest.approx(expected, abs=1e-9)
        assert all(5 < value < 95 for value in expected)


def label_maps(code, label):
    """A frame a character: ``1`` with the object, ``x`` with it elsewhere, ``.`` without it, ``-`` no file."""
    maps = []
    for character in code:
        maps.append(None if character == "-" else np.zeros((HEIGHT, WIDTH), int))
        if character == "1":
            maps[-1][4:20, 4:20] = label
        elif character == "x":
            maps[-1][24:40, 4:20] = label
    return maps


@pytest.mark.parametrize(("annotated", "predicted", "expected"), [
    ("x1111x", "11111x", 100),              # neither the first nor the last frame counts
    ("111...", "111...", 100),              # vanishes, and is lost
    ("111...", "111111", 50),               # vanishes, and is still predicted
    ("1.....", "111111", 0),                # annotated in the first frame only, and still predicted
    ("1.....", "1.....", 100),              # annotated in the first frame only, and lost
    ("1..111", "1..xxx", 50),               # comes late, and is predicted elsewhere
    ("111111", "1.....", 0),                # never predicted
    ("11-1-1", "11x1x1", 100),              # frames without ground truth do not count
    ("..1111", "111111", None),             # not in the input mask
])
def test_which_frames_count(evaluate, capsys, annotated, predicted, expected):
    ground_truth, predictions = label_maps(annotated, 1), label_maps(predicted, 1)
    for maps in (ground_truth, predictions):            # a second object that is always right
        for labels in maps:
            if labels is not None:
                labels[20:40, 30:60] = 2
    scores = evaluate(ground_truth, predictions)
    assert scores == {2: (100, 100)} | ({} if expected is None else {1: (expected, expected)})
    assert ("frames have no ground truth" in capsys.readouterr().err) == ("-" in annotated)


def test_two_annotated_frames_are_too_few(evaluate):
    assert evaluate(label_maps("1----1", 1), label_maps("111111", 1)) == {}


def test_renumbered_objects_keep_their_scores(evaluate):
    ground_truth = list(map(np.add, label_maps("1.11", 4), label_maps("xxxx", 9)))
    predictions = list(map(np.add, label_maps("1111", 1), label_maps("xxxx", 2)))
    assert evaluate(ground_truth, predictions, renumber=True) == {1: (50, 50), 2: (100, 100)}


def test_an_object_counts_after_its_input_mask(evaluate):
    """As on YouTubeVOS: no prediction is needed before the first input mask."""
    ground_truth, predictions = label_maps("..1111", 7), label_maps("..x1x1", 7)
    predictions[:2] = None, None
    assert evaluate(ground_truth, predictions, masks=(2,)) == {7: (50, 50)}


def test_every_value_is_the_object_of_davis_2016(evaluate):
    ground_truth = list(map(np.add, label_maps("1111", 3), label_maps("xxxx", 8)))
    predictions = [(labels > 0) * 255 for labels in ground_truth]
    assert evaluate(ground_truth, predictions, binary=True) == {255: (100, 100)}


def test_overall_is_the_mean_over_objects():
    scores = [ObjectScore("one", 1, 90, 70), ObjectScore("two", 1, 30, 10), ObjectScore("two", 2, 0, 40)]
    assert [line.split() for line in table(scores).splitlines()] == [
        ["sequence", "J&F", "J", "F"], ["one", "80.0", "90.0", "70.0"], ["two", "20.0", "15.0", "25.0"],
        ["overall", "40.0", "40.0", "40.0"]]


def test_the_csv_names_the_network(tmp_path):
    write_csv([ObjectScore("one", 1, 90, 70.12345)], tmp_path / "scores.csv", "lite", "0012ab34")
    assert (tmp_path / "scores.csv").read_text() == (
        "sequence,object,J&F,J,F,network,weights\none,1,80.062,90.000,70.123,lite,crc32:0012ab34\n")
