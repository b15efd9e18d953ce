"""The scripts that make data sets smaller."""
import errno
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.image_io import write_mask
from dataset.resize import resize_image
from scripts import resize_youtube
from util.cli import InputError
from util.palette import davis_palette

FRAME, SMALL = "JPEGImages/a/00000.jpg", "JPEGImages/a/small.jpg"


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "in"
    gradient = np.tile(np.arange(128, dtype=np.uint8), (96, 1))
    labels = np.zeros((96, 128), np.uint8)
    labels[24:72, 32:96] = 7
    for kind in ("JPEGImages/a", "Annotations/a"):
        (folder / kind).mkdir(parents=True)
    Image.fromarray(np.dstack([gradient] * 3)).save(folder / FRAME, quality=95)
    write_mask(folder / "Annotations/a/00000.png", labels, davis_palette())
    Image.new("RGB", (21, 16), "red").save(folder / SMALL)
    return folder


@pytest.fixture
def resize(monkeypatch):
    """Runs resize_youtube.py in this process."""
    def resize(*arguments, **options):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments), "--workers", "1"])
        monkeypatch.setattr("progressbar.streams.original_stderr", sys.stderr)      # else that of the first import
        resize_youtube.main(**options)
    return resize


def test_frames_and_masks_stay_together(dataset, tmp_path, resize):
    resize(dataset, tmp_path / "out", "--size", 48, "--no_enlarge")
    frame = np.asarray(Image.open(tmp_path / "out" / FRAME))
    mask = Image.open(tmp_path / "out/Annotations/a/00000.png")
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame[24, 2:-2, 0].astype(int) - (2 * np.arange(64) + 0.5)[2:-2]).max() < 3
    assert mask.mode == "P"
    assert bytes(mask.getpalette()).ljust(768, b"\0") == davis_palette()
    expected = np.zeros((48, 64), np.uint8)
    expected[12:36, 16:48] = 7
    assert np.array_equal(np.asarray(mask), expected)
    assert (tmp_path / "out" / SMALL).read_bytes() == (dataset / SMALL).read_bytes()


@pytest.mark.parametrize(("size", "expected"), [((640, 360), (853, 480)), ((1279, 720), (852, 480)),
                                                ((360, 640), (480, 853)), ((854, 480), (854, 480))])
def test_sizes_are_the_published_ones(size, expected, tmp_path):
    Image.new("L", size).save(tmp_path / "a.png")
    resize_image(tmp_path / "a.png", tmp_path / "out/a.png", 480)
    assert Image.open(tmp_path / "out/a.png").size == expected


def test_resize_length_resizes_by_area_and_enlarges(dataset, tmp_path, resize):
    resize(dataset, tmp_path / "out", shorter=384, method="BOX")
    assert Image.open(tmp_path / "out" / FRAME).size == (512, 384)
    assert Image.open(tmp_path / "out" / SMALL).size == (504, 384)


def test_a_second_run_makes_only_what_is_missing(dataset, tmp_path, resize):
    resize(dataset, tmp_path / "out", "--size", 48)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    missing = tmp_path / "out" / FRAME
    missing.unlink()
    resize(dataset, tmp_path / "out", "--size", 48)
    assert {path for path, time in times.items() if path.stat().st_mtime_ns != time} == {missing}


def test_unusable_images_are_named_and_the_others_are_resized(dataset, tmp_path, resize, capsys, monkeypatch):
    broken, huge = dataset / FRAME, dataset / "JPEGImages/a/huge.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)          # an error above twice as many
    Image.new("RGB", (200, 101)).save(huge)
    with pytest.raises(InputError, match="2 images could not be resized"):
        resize(dataset, tmp_path / "out", "--size", 48)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line.split(": ")[1] for line in warnings] == [str(broken), str(huge)]
    assert "20200 pixels" in warnings[1]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["00000.png", "small.jpg"]


def test_bad_folders_are_refused(dataset, tmp_path, resize):
    with pytest.raises(InputError, match="choose another output folder"):
        resize(dataset, dataset / "smaller")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        resize(tmp_path / "nowhere", tmp_path / "out")


def test_a_full_disk_ends_the_run(dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        resize_image(dataset / FRAME, tmp_path / "out/00000.jpg", 48)
    assert not (tmp_path / "out/00000.jpg").exists()
