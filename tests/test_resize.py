"""The scripts that make data sets smaller."""
import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.image_io import write_mask
from dataset.resize import resize_image
from util.cli import InputError
from util.palette import davis_palette

ROOT = Path(__file__).resolve().parents[1]


def resize(script, *arguments, code=0):
    run = subprocess.run([sys.executable, ROOT / "scripts" / script, *map(str, arguments)], capture_output=True,
                         text=True, check=False)
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "in"
    gradient = np.tile(np.arange(128, dtype=np.uint8), (96, 1))
    labels = np.zeros((96, 128), np.uint8)
    labels[24:72, 32:96] = 7
    for kind in ("JPEGImages/a", "Annotations/a"):
        (folder / kind).mkdir(parents=True)
    Image.fromarray(np.dstack([gradient] * 3)).save(folder / "JPEGImages/a/00000.jpg", quality=95)
    write_mask(folder / "Annotations/a/00000.png", labels, davis_palette())
    Image.new("RGB", (20, 16), "red").save(folder / "JPEGImages/a/small.jpg")
    return folder


def test_frames_and_masks_stay_together(dataset, tmp_path):
    resize("resize_youtube.py", dataset, tmp_path / "out", "--size", 48)
    frame = np.asarray(Image.open(tmp_path / "out/JPEGImages/a/00000.jpg"))
    mask = Image.open(tmp_path / "out/Annotations/a/00000.png")
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame[24, 2:-2, 0].astype(int) - (2 * np.arange(64) + 0.5)[2:-2]).max() < 3
    assert mask.mode == "P"
    assert bytes(mask.getpalette()).ljust(768, b"\0") == davis_palette()
    expected = np.zeros((48, 64), np.uint8)
    expected[12:36, 16:48] = 7
    assert np.array_equal(np.asarray(mask), expected)
    small = "JPEGImages/a/small.jpg"
    assert (tmp_path / "out" / small).read_bytes() == (dataset / small).read_bytes()


def test_it_goes_on_where_it_was(dataset, tmp_path):
    resize("resize_length.py", dataset, tmp_path / "out", "--size", 48)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    gone = tmp_path / "out/JPEGImages/a/00000.jpg"
    gone.unlink()
    resize("resize_length.py", dataset, tmp_path / "out", "--size", 48)
    assert {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == {gone}


def test_a_broken_picture_is_named_and_costs_no_other(dataset, tmp_path):
    broken = dataset / "JPEGImages/a/00000.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    err = resize("resize_youtube.py", dataset, tmp_path / "out", "--size", 48, code=2)
    assert f"warning: {broken}: cannot be resized" in err
    assert "error: 1 picture could not be resized" in err
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["00000.png", "small.jpg"]


def test_what_makes_no_sense_is_refused(dataset, tmp_path):
    assert "name another to write to" in resize("resize_youtube.py", dataset, dataset, code=2)
    assert "nowhere: no such folder" in resize("resize_youtube.py", tmp_path / "nowhere", tmp_path / "out", code=2)


def test_a_full_disk_is_no_fault_of_the_picture(dataset, tmp_path, monkeypatch):
    def save(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Image.Image, "save", save)
    picture = dataset / "JPEGImages/a/00000.jpg"
    with pytest.raises(OSError, match=r"No space left on device; free some and run this again: '.*0.jpg'") as caught:
        resize_image(picture, tmp_path / "out/00000.jpg", 48, Image.Resampling.BICUBIC)
    assert not isinstance(caught.value, InputError)
    assert not list((tmp_path / "out").iterdir())
