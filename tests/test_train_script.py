"""``train.py`` as users start it: real processes on made-up data, at a small size."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_network
from util.hyper_para import parse

ROOT = Path(__file__).resolve().parents[1]
SIZE = ("--size", "48", "-b", "2", "--num_workers", "1", "--no_pretrained", "--device", "cpu", "--lr", "1e-4")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data in all four layouts."""
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, "-m", "scripts.make_dataset", folder, "--images", "12", "--videos", "4",
                    "--frames", "4", "--height", "64", "--photos", "--cutouts"], check=True, capture_output=True)
    return folder


def start(folder, made, *arguments, launcher=()):
    command = [sys.executable, *launcher, ROOT / "train.py", "--static_root", made / "static",
               "--bl_root", made / "BL30K",
               "--davis_root", made / "DAVIS", "--yv_root", made / "YouTube", *SIZE, *arguments]
    return subprocess.Popen([str(part) for part in command], cwd=folder, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, start_new_session=True,
                            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"})


def train(folder, made, *arguments, code=0, launcher=()):
    process = start(folder, made, *arguments, launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out, err


def saved(folder, iteration):
    """The weights that a run saved."""
    path, = folder.glob(f"saves/*/*_{iteration}.pth")
    return torch.load(path, weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_stages_chain_and_their_weights_load(made, tmp_path):
    for stage, before in ((0, None), (1, 0), (2, 1)):
        folder = tmp_path / str(stage)
        folder.mkdir()
        start_from = ()
        if before is not None:
            path, = (tmp_path / str(before)).glob("saves/*/*_2.pth")
            start_from = ("--load_network", path)
        out, _ = train(folder, made, "--id", f"s{stage}", "--stage", stage, "-i", 2, "--debug", *start_from)
        long_id = re.search(r"saved in saves/(\w{5}_[\d.]+_s\d)\n", out).group(1)
        for name in ("loss_1", "loss_2", "total_loss", "p", "iou/iou", "lr", "time",
                     *(["iou/sec_iou"] if stage else [])):
            assert re.search(rf"^s{stage} - It      1 \[TRAIN\] \[{name}\]: [\d.e-]+$", out, re.M), name
        assert ("[iou/sec_iou]" in out) == (stage > 0)
        assert f"s{stage} - hyperpara: " in out
        assert f"s{stage} - git: " in out
        assert sorted(path.name for path in (folder / "saves" / long_id).iterdir()) == [
            f"{long_id}_2.pth", f"{long_id}_checkpoint.pth"]
        assert list((folder / "log" / long_id).glob("events*"))
        assert saved(folder, 2)["mask_rgb_encoder.conv1.weight"].shape[1] == (5 if stage else 4)
        load_network(folder / "saves" / long_id / f"{long_id}_checkpoint.pth")


def test_lite_learns_from_longer_clips(made, tmp_path):
    out, _ = train(tmp_path, made, "--network", "lite", "--id", "x", "--stage", 1, "-i", 2, "--frames", 4, "--top_k", 4,
                   "--files_every", 5, "--encoder_lr", 0.1, "--debug")
    losses = [float(value) for value in re.findall(r"It      1 \[TRAIN\] \[loss_[123]\]: ([\d.e-]+)$", out, re.M)]
    assert len(losses) == 3
    total = float(re.search(r"It      1 .*total_loss\]: (.*)$", out, re.M).group(1))
    assert total == pytest.approx(sum(losses), rel=1e-5)
    weights, = tmp_path.glob("saves/*/*_2.pth")
    assert load_network(weights).variant == "lite"


def test_a_killed_training_goes_on_as_if_nothing_had_happened(made, tmp_path):
    for name in ("whole", "killed", "resumed"):
        (tmp_path / name).mkdir()
    arguments = ("--network", "lite", "--id", "x", "--stage", 2, "-i", 20, "--steps", 13)
    train(tmp_path / "whole", made, *arguments)
    process = start(tmp_path / "killed", made, *arguments, "--save_every", 10)
    deadline = time.time() + 120
    while not list(tmp_path.glob("killed/saves/*/*_checkpoint.pth")) and time.time() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    checkpoint, = tmp_path.glob("killed/saves/*/*_checkpoint.pth")
    assert torch.load(checkpoint, weights_only=True)["it"] == 10
    assert not list(tmp_path.glob("killed/saves/*/*_20.pth"))
    out, err = train(tmp_path / "resumed", made, *arguments, "--load_model", checkpoint, "--lr", 1e-3)
    assert "goes on with its own --lr 0.0001, not 0.001" in err
    assert "starting at iteration 10" in out
    whole = saved(tmp_path / "whole", 20)
    assert same(saved(tmp_path / "resumed", 20), whole)
    assert not same(saved(tmp_path / "killed", 10), whole)

    cut = tmp_path / "cut_checkpoint.pth"
    cut.write_bytes(checkpoint.read_bytes()[:100_000])
    _, err = train(tmp_path, made, "--stage", 2, "--load_model", cut, code=2)
    assert "cut_checkpoint.pth: not a readable PyTorch weights file" in err
    weights, = tmp_path.glob("whole/saves/*/*_20.pth")
    _, err = train(tmp_path, made, "--stage", 2, "--load_model", weights, code=2)
    assert "_20.pth: not a training checkpoint" in err
    _, err = train(tmp_path, made, *arguments, "--load_model", checkpoint, "-i", 10, code=2)
    assert "_checkpoint.pth: is at iteration 10 already" in err
    _, err = train(tmp_path, made, "--stage", 2, "--load_network", weights, code=2)
    assert "_20.pth: weights of another network" in err


@pytest.fixture(scope="module")
def one_process(made, tmp_path_factory):
    """Three iterations of one process with a batch of four."""
    folder = tmp_path_factory.mktemp("one")
    train(folder, made, "--id", "x", "--stage", 1, "-i", 3, "-b", 4)
    return saved(folder, 3)


@pytest.mark.parametrize("launcher", ["run", "launch"])         # torchrun is the first of them
def test_two_processes_learn_what_one_with_twice_the_batch_does(made, one_process, tmp_path, launcher):
    train(tmp_path, made, "--id", "x", "--stage", 1, "-i", 3, "-b", 2,
          launcher=("-m", f"torch.distributed.{launcher}", "--standalone", "--nproc_per_node=2"))
    one, two = one_process, saved(tmp_path, 3)
    assert one.keys() == two.keys()
    # Adam's step has the size of the learning rate even where the gradient is all rounding: a few weights go another
    # way. Three steps of 1e-4 move a weight by up to 3e-4; the mean difference is to be far below that.
    difference = torch.cat([(one[name] - two[name]).flatten().abs() for name in one if one[name].is_floating_point()])
    assert difference.mean() < 6e-6
    assert difference.median() < 1e-7


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_saves_first(made, tmp_path, how):
    process = start(tmp_path, made, "--id", "x", "--stage", 0, "-i", 1000, "--debug")
    for line in process.stdout:
        if "It      2" in line:
            break
    os.killpg(process.pid, how)             # clusters and terminals tell all processes, the loading ones too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + how
    stopped = int(re.search(r"stopped at iteration (\d+), saved in", out).group(1))
    assert stopped >= 3
    assert saved(tmp_path, stopped)
    assert "Traceback" not in err


def test_null_saves_nothing_and_bad_files_are_counted(made, tmp_path):
    root = tmp_path / "static"
    import shutil
    shutil.copytree(made / "static", root)
    broken = next(root.glob("ecssd/*.jpg"))
    broken.write_bytes(broken.read_bytes()[:300])
    out, err = train(tmp_path, made, "--id", "null", "--stage", 0, "-i", 14, "--static_root", root)
    assert "nothing saved (--id NULL)" in out
    assert f"{broken}: cannot be read" in err
    assert re.search(r"[1-9] samples could not be used and were replaced", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["static"]


def test_a_training_that_diverges_saves_no_garbage(made, tmp_path):
    _, err = train(tmp_path, made, "--network", "lite", "--id", "x", "--stage", 0, "-i", 6, "--lr", 1e30, code=2)
    assert "the weights are not finite numbers any more" in err
    assert not list(tmp_path.glob("saves/*/*"))


def test_data_of_which_nothing_can_be_used_is_refused(made, tmp_path):
    folder = tmp_path / "static/ecssd"
    folder.mkdir(parents=True)
    for path in (made / "static/ecssd").iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[:200])
    _, err = train(tmp_path, made, "--stage", 0, "-b", 1, "--static_root", tmp_path / "static", code=2)
    last = err.strip().splitlines()[-1]
    assert re.match(r"error: none of the \d+ training samples can be used; the first: .*: cannot be read", last), err
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "message"), [
    (("--id", "../x"), "argument --id: '../x': use letters"),
    (("--lr", "nan"), "argument --lr: 'nan' is not a number above 0"),
    (("--encoder_lr", "-1"), "argument --encoder_lr: '-1' is not a number above 0"),
    (("--seed", str(2 ** 63)), "has more than 63 bits"),
    (("--frames", "1"), "--frames: 2 or more"),
    (("--no_pretrained", "--backbone_weights", "x.pth"), "not allowed with argument"),
])
def test_arguments_are_checked(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        parse(list(arguments))
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (("--stage", 0, "--static_root", "nowhere"), "nowhere: no such folder"),
    (("--stage", 1, "--bl_root", "nowhere"), "nowhere/JPEGImages: no such folder"),
    (("--stage", 2, "--davis_root", "nowhere"), "train.txt: no such file"),
    (("--stage", 0, "-b", 5000), "do not fill a batch of 5000"),
    (("--load_network", "nowhere.pth"), "nowhere.pth: no such weights file"),
    (("--device", "cuda:77"), "--device cuda:77: not available"),
])
def test_bad_input_is_refused_at_the_start(made, tmp_path, arguments, message):
    _, err = train(tmp_path, made, *arguments, code=2)
    errors = [line for line in err.splitlines() if "error: " in line]
    assert len(errors) == 1, err
    assert message in errors[0]
    assert "Traceback" not in err
