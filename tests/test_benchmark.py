"""The benchmarks of inference and training measure what they print."""
import argparse
import os
import sys

import pytest
import torch

from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from scripts import benchmark, benchmark_training, make_dataset, timing
from scripts.timing import filled_core, in_new_process, timed_parts
from util.cli import InputError

SMALL = ("--model", str(LITE_WEIGHTS), "--device", "cpu", "--memory", "3", "--size", "64", "96", "--repeats", "2")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script in this process and returns the cells of its table's rows."""
    monkeypatch.setattr(timing, "in_new_process", lambda function, *args: function(*args))

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        script.main()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
                if line.startswith("| ") and line[2].isdigit()]
    return run


@torch.inference_mode()
def test_the_memory_is_filled_and_every_part_is_timed():
    network = load_network(LITE_WEIGHTS)
    core = filled_core(network, argparse.Namespace(size=(64, 96), amp=False), objects=2, memory=7)
    assert core.labels == [1, 2]
    before = core.step(torch.randn(3, 64, 96))
    assert [len(group.bank) for group in core._groups] == [7]
    with timed_parts(network, torch.device("cpu")) as seconds:
        core.step(torch.randn(3, 64, 96))
    assert seconds.keys() == {"encoders", "heads", "read", "decoder"}
    timed = dict(seconds)
    assert core.step(torch.randn(3, 64, 96)).shape == before.shape
    assert seconds == timed                             # nothing is timed after the block


@pytest.mark.slow
def test_frames_have_a_row_for_each_setting(run):
    rows = run(benchmark, *SMALL, "--objects", 1, 2)
    assert [row[:2] for row in rows] == [["1", "3"], ["2", "3"]]
    for row in rows:
        assert float(row[2]) * float(row[3]) == pytest.approx(1, rel=0.1)        # seconds per frame, frames/s
        assert row[4] == ""
        parts = [int(part.split()[1]) for part in row[-1].split(", ")]
        assert sum(parts) == pytest.approx(100, abs=4)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--size", 10 ** 9, 10 ** 9), "both sides need 16 to 65536 pixels"), (("--memory", 10 ** 6), "2 .* to 10000"),
    (("--memory", 1), "must be 2"), (("--objects", 300), "at most 255")])
def test_impossible_settings_are_refused(run, arguments, message):
    with pytest.raises(InputError, match=message):
        run(benchmark, *arguments)


def test_missing_weights_are_named(run):
    with pytest.raises(InputError, match="none.pth: no such weights file"):
        run(benchmark, *SMALL, "--model", "none.pth", "--objects", 1)


@pytest.mark.slow
def test_training_has_a_row_for_each_kind_of_sample_and_stage(run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    run(make_dataset, tmp_path, "--images", 6, "--videos", 2, "--frames", 3, "--height", 64, "--photos", "--cutouts",
        "--workers", 1)
    rows = run(benchmark_training, "--network", "lite", "--device", "cpu", "--batch_size", 2, "--size", 64,
               "--repeats", 1, "--data", tmp_path)
    assert [row[:2] for row in rows[:2]] == [["0", "1"], ["1 to 3", "2"]]
    for _, _, seconds, samples, megabytes in rows[:2]:
        assert float(samples) * float(seconds) == pytest.approx(2, abs=0.02)
        assert float(megabytes) > 100
    assert [stage for stage, _ in rows[2:]] == ["0", "1", "2"]
    assert all(float(samples) > 0 for _, samples in rows[2:])


@pytest.mark.parametrize(("arguments", "message"),
                         [(("--size", 100), "multiple of 16"), (("--frames", 1), "at least 2")])
def test_impossible_training_settings_are_refused(run, arguments, message):
    with pytest.raises(InputError, match=message):
        run(benchmark_training, *arguments)


def test_a_killed_process_is_a_lack_of_memory():
    with pytest.raises(MemoryError, match="the process was killed"):
        in_new_process(os._exit, 1)
