"""The benchmark measures what it says."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from scripts.benchmark import Setting, filled_core, watch_parts

ROOT = Path(__file__).resolve().parents[1]


def setting(**changes):
    return Setting(LITE_WEIGHTS, "cpu", False, False, 2, 7, (64, 96), 2)._replace(**changes)


@torch.inference_mode()
def test_the_memory_is_filled_and_every_part_is_timed_once():
    network = load_network(LITE_WEIGHTS)
    core = filled_core(network, setting(), torch.randn(3, 64, 96))
    assert core.labels == [1, 2]
    before = core.step(torch.randn(3, 64, 96))
    assert [len(group.bank) for group in core._groups] == [7]
    watch = watch_parts(network, torch.device("cpu"))
    core.step(torch.randn(3, 64, 96))
    assert watch.seconds.keys() == {"encoders", "heads", "read", "decoder"}
    watch.stop()
    counted = dict(watch.seconds)
    after = core.step(torch.randn(3, 64, 96))
    assert watch.seconds == counted                 # nothing is timed any more
    assert before.shape == after.shape


def test_a_row_for_each_setting():
    run = subprocess.run([sys.executable, "-m", "scripts.benchmark", "--model", LITE_WEIGHTS, "--device", "cpu",
                          "--objects", "1", "2", "--memory", "3", "--size", "64", "96", "--repeats", "2"],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = [row.strip("| ").split(" | ") for row in run.stdout.splitlines() if row.startswith(("| 1 ", "| 2 "))]
    assert [row[:2] for row in rows] == [["1", "3"], ["2", "3"]]
    for row in rows:
        assert float(row[2]) * float(row[3]) == pytest.approx(1, rel=0.1)        # seconds a frame, frames a second
        shares = [int(part.split()[1]) for part in row[-1].split(", ")]
        assert sum(shares) == pytest.approx(100, abs=4)


@pytest.mark.parametrize("arguments", [("--size", 10 ** 9, 10 ** 9), ("--memory", 10 ** 6)])
def test_too_much_is_one_line(arguments):
    result = subprocess.run([sys.executable, "-m", "scripts.benchmark", "--model", LITE_WEIGHTS, "--device", "cpu",
                             *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")


def test_missing_weights_are_one_line():
    run = subprocess.run([sys.executable, "-m", "scripts.benchmark", "--model", "none.pth"], capture_output=True,
                         text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.splitlines() == ["error: none.pth: no such weights file"]
