"""The training bundle: what is packed, and how training on it resumes."""
import os
import re
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import torch
from commands import ROOT
from PIL import Image

from dataset.image_io import write_mask
from model import pretrained
from model.checkpoint import read_file, read_network
from model.defaults import LITE_WEIGHTS
from model.variants import lite_network
from scripts import pack_training
from util.cli import InputError
from util.palette import davis_palette

# Stands for Python: logs its arguments. As train.py it runs for $TRAINING seconds or until SIGTERM, and writes weights
# and a checkpoint, one byte longer if it resumes.
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then echo 3; exit; fi
save() {
    mkdir -p "saves/now_$1" && cd "saves/now_$1"
    echo weights > "now_$1_1.pth"
    (head -c "$SIZE" /dev/zero; tail -c 1 ../../checkpoint.pth) > "now_$1_checkpoint.pth"
}
trap '[ -z "$SAVE" ] || save "$5"; exit 143' TERM
echo "$@" >> "$LOG"
case "$*" in
    *shrink_weights*) cp "$3" "$4" ;;
    *train.py*)
        # Short steps: a signal sent to a process that has just been started can get lost.
        for step in $(seq "$((TRAINING * 10))"); do /bin/sleep 0.1; done
        [ "$CODE" != 0 ] || save "$5"
        exit "$CODE" ;;
esac
"""
# Stands for sleep: logs its argument, and sleeps for $MINUTES instead, from the start of training on.
SLEEP = """#!/bin/sh
echo "sleep $1" >> "$LOG"
until grep -q train.py "$LOG"; do /bin/sleep 0.1; done
exec /bin/sleep "$MINUTES"
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
    for name in ("train.py", "model/vectors.h", "model/winograd.cpp", "scripts/make_dataset.py",
                 "scripts/train_bundle.sh", "scripts/train_lite.sh"):
        assert (bundle / name).read_bytes() == (ROOT / name).read_bytes()


def test_by_default_the_imagenet_weights_are_packed(pack, tmp_path, monkeypatch):
    network = lite_network()
    values = {name: torch.full_like(value, 0.3) for name, value in network.rgb_encoder.state_dict().items()}
    monkeypatch.setattr(pretrained, "imagenet_weights", lambda variant, path: {"variant": variant, "path": path})
    monkeypatch.setattr(pretrained, "load_folded", lambda parts, weights: parts[0].load_state_dict(values))
    position = sys.argv.index("--weights")
    del sys.argv[position:position + 2]
    pack()
    with tarfile.open(tmp_path / "out.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    state = read_file(tmp_path / "training_bundle/weights.pth")
    assert state.keys() == network.state_dict().keys()
    assert all(value.dtype == torch.float16 for value in state.values())
    assert all((state[f"rgb_encoder.{name}"] == value.half()).all() for name, value in values.items())


def test_a_bundle_that_is_too_large_is_not_written(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_training, "MAX_MEGABYTES", 1)
    with pytest.raises(InputError, match=r"out\.tar: would have \d+\.\d MB, more than 1; use a smaller --size"):
        pack()
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


@pytest.fixture
def train(tmp_path):
    """Start scripts/train_bundle.sh; returns the process. Its minutes begin at the variable SECONDS."""
    script = tmp_path / "bundle/scripts/train_bundle.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "scripts/train_bundle.sh").read_bytes())
    for name, text in (("python", PYTHON), ("sleep", SLEEP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    started = []

    def start(*arguments, **variables):
        (tmp_path / "log").write_text("")
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python", "LOG": f"{tmp_path}/log",
               "SIZE": "16000000", "TRAINING": "0", "CODE": "0", "SAVE": "1", "MINUTES": "60", **variables}
        # SIGINT is ignored if the tests run in the background.
        started.append(subprocess.Popen(
            ["bash", script, *arguments], cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process, log):
    """The exit code, the output, and the logged commands but sleep, which would keep the output open."""
    output, _ = process.communicate(timeout=20)
    return process.returncode, output, [line for line in log.read_text().splitlines() if not line.startswith("sleep")]


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def sizes(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_training_on_the_bundle_resumes_from_small_pieces(train, tmp_path):
    for start in ("--load_network weights.pth", "--load_model checkpoint.pth"):
        code, _, commands = finish(train("out", "--minutes", "5", "--size", "384"), tmp_path / "log")
        make, training, shrink = commands
        assert code == 0
        assert make.startswith("-m scripts.make_dataset composed --kinds yv")
        assert training.endswith(f"--num_workers 3 {start} --size 384")
        run = f"now_{training.split()[4]}"
        assert shrink == f"-m scripts.shrink_weights saves/{run}/{run}_1.pth {tmp_path}/out/lite.pth"
    assert sizes(tmp_path / "out") == {"checkpoint.aa": 15_000_000, "checkpoint.ab": 1_000_001, "lite.pth": 8}


def test_training_ends_after_the_minutes(train, tmp_path):
    code, _, commands = finish(train("out", "--minutes", "1", TRAINING="60", MINUTES="1"), tmp_path / "log")
    assert (code, len(commands)) == (0, 3)
    assert sizes(tmp_path / "out") == {"checkpoint.aa": 15_000_000, "checkpoint.ab": 1_000_000, "lite.pth": 8}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_and_the_checkpoint_is_kept(train, tmp_path, number):
    process = train("out", TRAINING="60")
    wait_until(lambda: {"sleep", "train.py"} <= set((tmp_path / "log").read_text().split()))
    process.send_signal(number)
    code, _, commands = finish(process, tmp_path / "log")
    assert (code, len(commands)) == (0, 3)
    assert "checkpoint.aa" in sizes(tmp_path / "out")


def test_the_timer_has_the_time_that_is_left(train, tmp_path):
    process = train("out", SECONDS="100", TRAINING="60", MINUTES="0.3")
    process.communicate(timeout=20)
    left = int(re.search("^sleep ([0-9]+)", (tmp_path / "log").read_text(), re.MULTILINE)[1])
    assert 470 < left <= 480


def test_composing_may_use_up_the_time(train, tmp_path):
    code, output, commands = finish(train("out", "--minutes", "2", SECONDS="71"), tmp_path / "log")
    assert (code, output) == (0, "The videos are composed, and too little time is left to train: run this again.\n")
    assert len(commands) == 1


def test_training_that_ends_before_a_checkpoint_changes_nothing(train, tmp_path):
    for path in (tmp_path / "bundle/saves/now_bundle1/now_bundle1_checkpoint.pth", tmp_path / "out/checkpoint.00"):
        path.parent.mkdir(parents=True)
        path.write_text("old")
    code, output, _ = finish(train("out", TRAINING="60", MINUTES="0.3", SAVE=""), tmp_path / "log")
    assert (code, output) == (2, f"error: training ended before its first checkpoint; {tmp_path}/out is unchanged\n")
    code, _, commands = finish(train("out", CODE="7"), tmp_path / "log")
    assert (code, len(commands)) == (7, 2)
    assert sizes(tmp_path / "out") == {"checkpoint.00": 3}


def test_a_new_checkpoint_replaces_all_pieces(train, tmp_path):
    out = tmp_path / "out"
    (out / "checkpoint_partial").mkdir(parents=True)
    (out / "checkpoint_partial/checkpoint.aa").touch()
    for name in ("checkpoint.00", "checkpoint.01"):
        (out / name).write_text("x")
    assert finish(train("out", SIZE="5"), tmp_path / "log")[0] == 0
    assert sizes(out) == {"checkpoint.aa": 6, "lite.pth": 8}


def test_an_interrupted_replacement_is_repeated(train, tmp_path):
    out = tmp_path / "out"
    (out / "checkpoint_new").mkdir(parents=True)
    (out / "checkpoint_new/checkpoint.aa").write_text("new")
    (out / "checkpoint.ab").write_text("old")
    assert finish(train("out", CODE="7"), tmp_path / "log")[0] == 7
    assert sizes(out) == {"checkpoint.aa": 3}


@pytest.mark.parametrize("value", ["0", "-3", "1.5", ""])
def test_minutes_are_a_positive_whole_number(train, tmp_path, value):
    done = finish(train("out", "--minutes", value), tmp_path / "log")
    assert done == (2, "error: --minutes needs a positive whole number\n", [])


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["-o"], 2), (["--help"], 0), (["out", "-h"], 0)])
def test_usage(train, tmp_path, arguments, code):
    found, output, commands = finish(train(*arguments), tmp_path / "log")
    assert (found, commands) == (code, [])
    assert output.startswith("Train lite from a bundle of scripts/pack_training.py")
    assert not (tmp_path / "out").exists()
