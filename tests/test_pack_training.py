"""The training bundle: what is packed, and how training on it resumes."""
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from commands import ROOT
from PIL import Image

from dataset.image_io import write_mask
from model.checkpoint import read_network
from model.defaults import LITE_WEIGHTS
from scripts import pack_training
from util.cli import InputError
from util.palette import davis_palette

# Stands for Python: logs its arguments, and as train.py writes a checkpoint, one byte longer if it resumes.
PYTHON = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in *shrink_weights*) cp "$3" "$4";; *train.py*)
    mkdir -p saves/now_bundle && cd saves/now_bundle
    echo weights > now_bundle_1.pth
    (head -c 16000000 /dev/zero; tail -c 1 ../../checkpoint.pth) > now_bundle_checkpoint.pth
    exit 124
esac
"""


def write_pair(images, masks, name):
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (90, 60), "red").save(images / f"{name}.jpg")
    write_mask(masks / f"{name}.png", np.eye(60, 90, dtype=np.uint8), davis_palette())


@pytest.fixture
def pack(tmp_path, monkeypatch):
    trainval = tmp_path / "DAVIS/2017/trainval"
    for video in ("bear", "held-out"):
        write_pair(trainval / "JPEGImages/480p" / video, trainval / "Annotations/480p" / video, "00000")
    (trainval / "ImageSets/2017").mkdir(parents=True)
    (trainval / "ImageSets/2017/train.txt").write_text("bear\n")
    for kind in ("objects", "people"):
        write_pair(tmp_path / kind / "images", tmp_path / kind / "masks", "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "out.tar", "--davis_root", "DAVIS", "--annotated", "objects", "--parts",
                                      "people", "--weights", str(LITE_WEIGHTS), "--size", "48", "--workers", "1"])
    return pack_training.main


def test_the_bundle_holds_reduced_data_weights_and_code(pack, tmp_path):
    pack()
    with tarfile.open(tmp_path / "out.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    bundle = tmp_path / "training_bundle"
    images = {path.relative_to(bundle).as_posix(): Image.open(path).size for path in bundle.rglob("*.[jp][pn]g")}
    assert images == dict.fromkeys([
        "DAVIS/2017/trainval/JPEGImages/480p/bear/00000.jpg", "DAVIS/2017/trainval/Annotations/480p/bear/00000.png",
        "annotated/0/images/a.jpg", "annotated/0/masks/a.png", "parts/0/images/a.jpg", "parts/0/masks/a.png"], (72, 48))
    assert (bundle / "DAVIS/2017/trainval/ImageSets/2017/train.txt").read_text() == "bear\n"
    assert read_network(bundle / "weights.pth").variant == "lite"
    for name in ("train.py", "scripts/make_dataset.py", "scripts/train_bundle.sh", "model/__init__.py"):
        assert (bundle / name).read_bytes() == (ROOT / name).read_bytes()


def test_a_bundle_that_is_too_large_is_not_written(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_training, "MAX_MEGABYTES", 1)
    with pytest.raises(InputError, match=r"out\.tar: would have \d\.\d MB, more than 1; use a smaller --size"):
        pack()
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_training_on_the_bundle_resumes_from_small_pieces(tmp_path):
    bundle, python, log = tmp_path / "bundle", tmp_path / "python", tmp_path / "log"
    (bundle / "scripts").mkdir(parents=True)
    script = bundle / "scripts/train_bundle.sh"
    script.write_bytes((ROOT / "scripts/train_bundle.sh").read_bytes())
    python.write_text(PYTHON)
    python.chmod(0o700)
    for start in ("--load_network weights.pth", "--load_model checkpoint.pth"):
        log.unlink(missing_ok=True)
        subprocess.run(["bash", script, tmp_path / "out", "--minutes", "5", "--size", "384"], check=True,
                       env={**os.environ, "PYTHON": str(python), "LOG": str(log)}, capture_output=True)
        make, train, shrink = log.read_text().splitlines()
        assert make.startswith("-m scripts.make_dataset composed --kinds yv")
        assert train.endswith(f"{start} --size 384")
        assert shrink == f"-m scripts.shrink_weights saves/now_bundle/now_bundle_1.pth {tmp_path}/out/lite.pth"
    pieces = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert pieces == {"checkpoint.00": 15_000_000, "checkpoint.01": 1_000_001, "lite.pth": 8}
