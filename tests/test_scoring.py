"""Scores are counted under the right object."""
from pathlib import Path

import numpy as np
import pytest

from dataset.image_io import write_mask
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference.scoring import score_video
from util.palette import davis_palette

NAMES = [f"{index:05d}" for index in range(5)]


@pytest.fixture
def folders(tmp_path):
    """Two objects of the values 4 and 9, found as 1 and 2; each leaves a frame, in the truth, in the result or both."""
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir(), found.mkdir()
    for index, name in enumerate(NAMES):
        mask = np.zeros((64, 64), np.uint8)
        if index != 3:
            mask[5:25, 5:25] = 1
        mask[35:60, 35:60] = 2
        write_mask(truth / f"{name}.png", np.array([0, 4, 9], np.uint8)[mask], davis_palette())
        if index == 2:
            mask[mask == 1] = 0
        write_mask(found / f"{name}.png", mask, davis_palette())
    return truth, found


def test_objects_that_are_not_in_a_frame_do_not_shift_the_others(folders):
    truth, found = folders
    video = Video("two", ImageFrames([Path(f"{name}.jpg") for name in NAMES]), {0: truth / "00000.png"}, truth,
                  renumber=True)
    first, second = score_video(video, found)
    assert (first.label, second.label) == (1, 2)
    assert second.j == second.f == 100
    assert first.j == pytest.approx(200 / 3)          # lost in one frame of three
    assert first.f == pytest.approx(200 / 3)
