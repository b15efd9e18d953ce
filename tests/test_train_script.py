"""``train.py`` as users start it, on small synthetic data; in this process unless a test needs several."""
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time

import progressbar
import pytest
import torch
from commands import ROOT, command, free_port
from test_training_data import static_folder, video_root

import train as script
import util.allocation
from model.checkpoint import load_network
from model.model import Trainer
from util.cli import SIGNALS, InputError
from util.hyper_para import parse

SMALL = ("--size", 32, "-b", 1, "--no_pretrained", "--device", "cpu", "--lr", 1e-4)
LITE = ("--network", "lite", *SMALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data in all layouts."""
    root = tmp_path_factory.mktemp("data")
    static_folder(root / "static")
    return video_root(root)


def arguments_for(data, *arguments):
    """The command-line arguments, with the data folders."""
    return [str(argument) for argument in (
        "--static_root", data / "static", "--bl_root", data / "BL30K", "--davis_root", data / "DAVIS",
        "--yv_root", data / "YouTube", "--num_workers", 0, *arguments)]


@pytest.fixture
def train(data, tmp_path, monkeypatch, capsys):
    """A function that trains in this process and returns what was printed."""
    monkeypatch.setattr(util.allocation, "keep_memory", lambda: None)
    handlers, threads = {number: signal.getsignal(number) for number in SIGNALS}, torch.get_num_threads()
    torch.set_num_threads(1)                # as in `start`, for equal rounding

    def call(*arguments, folder=tmp_path, code=0):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments_for(data, *arguments)])
        monkeypatch.setattr(progressbar.streams, "original_stderr", sys.stderr)      # it keeps that of its import
        capsys.readouterr()
        assert script.main() == code
        return capsys.readouterr()
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)
    assert not multiprocessing.active_children()


def start(folder, data, *arguments, launcher=(), **environment):
    """Start a training process."""
    folder.mkdir(exist_ok=True)
    interpreter, *rest = command("train.py", *arguments_for(data, *arguments))
    return subprocess.Popen([interpreter, *launcher, *rest], cwd=folder, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **environment})


# Runs the script that is named first, and kills the process when it has saved its first checkpoint.
KILLED_WHEN_SAVED = """
import os, runpy, signal, sys
from model.model import Trainer

def save_and_die(*arguments, save=Trainer.save):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

Trainer.save = save_and_die
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def saved(folder, iteration):
    """The weights that a run saved."""
    path, = folder.glob(f"saves/*/*_{iteration}.pth")
    return torch.load(path, weights_only=True)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_published_network_goes_from_stage_to_stage(train, tmp_path):
    for stage, name in ((0, "s0"), (2, "NULL")):
        start_from = ("--load_network", *tmp_path.glob("saves/*/*_1.pth")) if stage else ()
        out, _ = train("--id", name, "--stage", stage, "-i", 1, *SMALL, *start_from)
        for scalar in ("loss_1", "loss_2", "total_loss", "p", "iou/iou", "lr", "time", "iou/sec_iou")[:7 + (stage > 0)]:
            assert re.search(rf"^{name} - It      0 \[TRAIN\] \[{scalar}\]: [\d.e-]+$", out, re.M), scalar
        assert ("[iou/sec_iou]" in out) == (stage > 0)
        assert f"{name} - hyperpara: " in out
        assert f"{name} - git: " in out
    long_id, = (path.name for path in (tmp_path / "saves").iterdir())
    assert re.fullmatch(r"\w{5}_[\d.]+_s0", long_id)
    assert sorted(path.name for path in (tmp_path / "saves" / long_id).iterdir()) == [
        f"{long_id}_1.pth", f"{long_id}_checkpoint.pth"]
    assert list((tmp_path / "log" / long_id).glob("events*"))
    assert saved(tmp_path, 1)["mask_rgb_encoder.conv1.weight"].shape[1] == 4
    load_network(tmp_path / "saves" / long_id / f"{long_id}_checkpoint.pth")


def test_debug_logs_every_iteration_and_saves_nothing_at_the_end(train, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    out, _ = train(*LITE, "--id", "x", "--stage", 1, "-i", 3, "--frames", 4, "--top_k", 3, "--kernel_sigma", 2,
                   "--max_distance", 10, "--encoder_lr", 0.1, "--debug")
    for iteration in range(3):
        losses = re.findall(rf"It      {iteration} \[TRAIN\] \[loss_[123]\]: ([\d.e-]+)$", out, re.M)
        total = float(re.search(rf"It      {iteration} .*total_loss\]: (.*)$", out, re.M).group(1))
        assert total == pytest.approx(sum(map(float, losses)), rel=1e-5)
    assert "finished at iteration 3, nothing saved (--debug)" in out
    assert not list(tmp_path.glob("saves/*/*"))
    folder, = tmp_path.glob("log/*")
    events = EventAccumulator(str(folder), {"images": 0}).Reload()
    assert [event.step for event in events.Images("train/pairs")] == [0, 1, 2]
    assert [event.step for event in events.Scalars("train/iou/sec_iou")] == [0, 1, 2]


@pytest.mark.slow
def test_a_killed_training_resumes_as_if_nothing_had_happened(train, data, tmp_path):
    # In stage 1, with five frames a video, the samples do not depend on the number of iterations.
    arguments = (*LITE, "--id", "x", "--stage", 1, "-i", 6, "--steps", 5, "--ema", 0.9, "--kernel_sigma", 2)
    train(*arguments, folder=tmp_path / "whole")
    process = start(tmp_path / "killed", data, *arguments, "-i", 100_000, "--save_every", 4,
                    launcher=("-c", KILLED_WHEN_SAVED), PYTHONPATH=str(ROOT))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    checkpoint, = tmp_path.glob("killed/saves/*/*_checkpoint.pth")
    assert torch.load(checkpoint, weights_only=True)["it"] == 4
    out, err = train(*arguments, "--load_model", checkpoint, "--lr", 1e-3, folder=tmp_path / "resumed")
    assert "resumes with its own --lr 0.0001, not 0.001" in err
    assert "starting at iteration 4" in out
    whole = saved(tmp_path / "whole", 6)
    assert equal(saved(tmp_path / "resumed", 6), whole)
    assert not equal(saved(tmp_path / "killed", 4), whole)

    _, err = train(*arguments, "--load_model", checkpoint, "-b", 2, "--ema", 0.5, folder=tmp_path / "other")
    assert "was saved with ema 0.9 and resumes with 0.5: the result differs" in err
    assert "was saved with samples per iteration 1 and resumes with 2" in err
    weights, = tmp_path.glob("whole/saves/*/*_6.pth")
    for wrong, message in ((("--load_model", weights), "not a training checkpoint"),
                           (("--load_model", checkpoint, "-i", 4), "is at iteration 4 already"),
                           (("--load_network", weights, "--network", "published"), "weights of another network")):
        with pytest.raises(InputError, match=message):
            train(*arguments, *wrong)


@pytest.fixture(scope="module")
def one_process(data, tmp_path_factory):
    """Three iterations of one process with a batch of two."""
    folder = tmp_path_factory.mktemp("one")
    process = start(folder, data, *LITE, "--id", "x", "--stage", 1, "-i", 3, "-b", 2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert [line[:17] for line in err.splitlines()] == ["0 of 3 iterations", "3 of 3 iterations"]    # the bar
    return saved(folder, 3)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["run", "launch"])         # torchrun is the first of them
def test_two_processes_learn_what_one_with_twice_the_batch_does(data, one_process, tmp_path, launcher):
    process = start(tmp_path, data, *LITE, "--id", "x", "--stage", 1, "-i", 3,
                    launcher=("-m", f"torch.distributed.{launcher}", "--standalone", "--nproc_per_node=2"))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "broadcast_buffers" not in err
    one, two = one_process, saved(tmp_path, 3)
    assert one.keys() == two.keys()
    # Adam's step has the size of the learning rate even where the gradient is only rounding error, so a few weights
    # differ. Three steps of 1e-4 move a weight by up to 3e-4; the mean difference must be far below that.
    difference = torch.cat([(one[name] - two[name]).flatten().abs() for name in one if one[name].is_floating_point()])
    assert difference.mean() < 6e-6
    assert difference.median() < 1e-7


@pytest.mark.slow
def test_all_processes_end_when_one_has_bad_input(data, tmp_path):
    port = free_port()
    ranks = [start(tmp_path, data, *LITE, "--stage", 1, *(("--bl_root", "nowhere") if rank else ()),
                   RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)) for rank in (0, 1)]
    errors = [process.communicate(timeout=120)[1].splitlines()[-1] for process in ranks]
    assert [process.returncode for process in ranks] == [2, 2]
    assert "another process of this run has failed" in errors[0]
    assert "nowhere/JPEGImages: no such folder" in errors[1]


def unhandled(number, _):
    raise AssertionError(f"signal {number} is not handled")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_ends_the_training(train, tmp_path, monkeypatch, number):
    def step(self, batch, iteration, original=Trainer.step):
        if iteration == 2:
            for child in multiprocessing.active_children():              # as clusters and terminals do
                os.kill(child.pid, number)
            os.kill(os.getpid(), number)
        return original(self, batch, iteration)
    signal.signal(number, unhandled)
    monkeypatch.setattr(Trainer, "step", step)
    out, _ = train(*LITE, "--id", "x", "--stage", 0, "-i", 9, "--num_workers", 1, code=128 + number)
    assert "stopped at iteration 3, saved in" in out
    assert saved(tmp_path, 3)


def test_ignored_signals_stay_ignored(train):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)                    # as by nohup
    train(*LITE, "--stage", 0, "-i", 1)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN


@pytest.mark.slow
def test_a_terminated_process_group_saves(data, tmp_path):
    process = start(tmp_path, data, *LITE, "--id", "x", "--stage", 0, "-i", 100_000, "--num_workers", 1,
                    "--save_every", 2)
    while not list(tmp_path.glob("saves/*/*_checkpoint.pth")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out + err
    assert saved(tmp_path, int(re.search(r"stopped at iteration (\d+), saved in", out).group(1)))
    assert "Traceback" not in err


def test_null_saves_nothing_and_bad_files_are_counted(train, tmp_path):
    folder = static_folder(tmp_path / "static", images=2)
    broken = folder / "p0.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    out, err = train(*LITE, "--stage", 0, "-i", 2, "--static_root", tmp_path / "static")
    assert "nothing saved (--id NULL)" in out
    assert f"warning: {broken}: cannot be read" in err
    assert "1 sample could not be used and were replaced" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["static"]


def test_a_training_that_diverges_ends_at_the_next_report(train, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "REPORT_EVERY", 3)
    with pytest.raises(InputError, match=r"not finite at iteration [23]"):
        train(*LITE, "--id", "x", "--stage", 0, "-i", 100_000, "--lr", 1e30)
    assert not list(tmp_path.glob("saves/*/*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_data_of_which_nothing_can_be_used_is_refused(train, tmp_path, workers):
    folder = static_folder(tmp_path / "static", images=2)
    for path in folder.glob("*.jpg"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"^none of the 2 training samples can be used; the first: .*p\d.jpg: [^\n]*$"):
        train(*LITE, "--stage", 0, "--static_root", tmp_path / "static", "--num_workers", workers)


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seconds = iter(["Jan01_00.00.01", "Jan01_00.00.01", "Jan01_00.00.01", "Jan01_00.00.02"])
    monkeypatch.setattr(script.time, "strftime", lambda _: next(seconds))
    assert [script.create_run_folder("x").name for _ in range(2)] == ["Jan01_00.00.01_x", "Jan01_00.00.02_x"]
    assert sorted(path.name for path in (tmp_path / "saves").iterdir()) == ["Jan01_00.00.01_x", "Jan01_00.00.02_x"]


@pytest.mark.parametrize(("arguments", "message"), [
    (("--id", "../x"), "argument --id: '../x': use letters"),
    (("--lr", "nan"), "argument --lr: 'nan' is not a number above 0"),
    (("--encoder_lr", "-1"), "argument --encoder_lr: '-1' is not a number above 0"),
    (("--seed", str(2 ** 63)), "has more than 63 bits"),
    (("--frames", "1"), "argument --frames: '1' is not an integer of at least 2"),
    (("--size", "40"), "--size: must be a multiple of 16"),
    (("--ema", "1"), "--ema: must be less than 1"),
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
def test_bad_input_is_refused_at_the_start(train, tmp_path, arguments, message):
    with pytest.raises(InputError) as error:
        train(*LITE, "--id", "x", *arguments)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("instruction", "warned"), [("avx512_f", True), ("avx512_bf16", False)])
def test_mixed_precision_is_called_slow_on_a_cpu_without_bfloat16(train, monkeypatch, instruction, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True}, raising=False)
    errors = train(*LITE, "--stage", 0, "-i", 1, "--amp", "--device", "cpu", "--debug").err
    assert ("warning: --amp: PyTorch reports no bfloat16 instructions of this CPU" in errors) is warned
