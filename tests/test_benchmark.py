"""The benchmarks of inference and training measure what they print."""
import os
import sys

import pytest
import torch

import inference_core
from model.defaults import LITE_WEIGHTS
from model.model import Trainer
from model.variants import lite_network, published_network
from scripts import benchmark, benchmark_training, compare_with_plain, timing
from scripts.timing import in_new_process
from util.cli import InputError

SMALL = ("--model", LITE_WEIGHTS, "--device", "cpu", "--size", "64", "96", "--repeats", "2")


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


@pytest.mark.slow
def test_frames_read_a_filled_memory_in_a_row_for_each_setting(run, monkeypatch):
    timed, readout = [], inference_core.readout

    def recorded(query, blocks, top_k, kernel_sigma, width):
        timed.append((sum(len(block.key) for block in blocks) // (4 * 6), blocks[0].value.shape[1], kernel_sigma))
        return readout(query, blocks, top_k, kernel_sigma, width)
    monkeypatch.setattr(inference_core, "readout", recorded)
    rows = run(benchmark, *SMALL, "--objects", 1, 2, "--memory", 3, 7)
    assert [row[:2] for row in rows] == [["1", "3"], ["1", "7"], ["2", "3"], ["2", "7"]]
    assert all(0 < float(seconds) < 60 and float(megabytes) > 100 for _, _, seconds, megabytes in rows)
    assert [frames for frames, _, _ in timed] == [1, 3, 3, 3, 1, 7, 7, 7] * 2       # 1 to start, 1 to warm up, 2 timed
    channels = timed[0][1]
    assert [values for _, values, _ in timed] == [channels] * 8 + [2 * channels] * 8
    assert {kernel_sigma for *_, kernel_sigma in timed} == {7.0}


@pytest.mark.slow
@pytest.mark.parametrize(("objects", "runs_each"), [(2, 2), (10, 1)])        # some of ten are hidden
def test_the_plain_network_gives_the_same_probabilities(objects, runs_each, run, weights, monkeypatch):
    time_clip, runs = timing.time_clip, []

    def recorded(args, objects, plain):
        runs.append((plain, time_clip(args, objects, plain)))
        return runs[-1][1]
    monkeypatch.setattr(timing, "time_clip", recorded)
    rows = run(compare_with_plain, "--model", weights, "--device", "cpu", "--size", 64, 100, "--objects", objects,
               "--frames", 7, "--runs", runs_each)
    (count, plain, _, seconds, _, ratio, difference), = rows
    assert count == str(objects)
    assert float(plain) == pytest.approx(float(ratio) * float(seconds), rel=0.05)
    assert [plain for plain, _ in runs] == [True, False] * runs_each
    assert [result.probabilities.shape for _, result in runs] == [(objects + 1, 64, 96)] * 2 * runs_each
    assert runs[0][1].probabilities.std() > 0.01
    assert 0 < float(difference) < 2e-4


@pytest.mark.parametrize(("state", "message"), [
    (lite_network, "not weights of the published network"),
    (lambda: published_network(single_object=True), "not weights of the published network"),
    (None, "none.pth: no such weights file")])
def test_other_weights_are_not_compared(state, message, run, tmp_path):
    if state:
        torch.save(state().state_dict(), tmp_path / "none.pth")
    with pytest.raises(InputError, match=message):
        run(compare_with_plain, "--model", tmp_path / "none.pth", "--size", 64, 100)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--size", 8, 96), "'8' is not an integer of at least 16"),
    (("--memory", 1), "'1' is not an integer of at least 2")])
def test_impossible_settings_are_refused(run, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(benchmark, *arguments)
    assert message in capsys.readouterr().err


def test_missing_weights_are_named(run):
    with pytest.raises(InputError, match="none.pth: no such weights file"):
        run(benchmark, *SMALL, "--model", "none.pth", "--objects", 1)


@pytest.mark.slow
def test_training_has_a_row_for_each_kind_of_sample(run, monkeypatch):
    batches, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, batch, i: batches.append(batch) or step(self, batch, i))
    rows = run(benchmark_training, "--network", "lite", "--device", "cpu", "--batch_size", 2, "--size", 64,
               "--repeats", 1)
    assert [row[:2] for row in rows] == [["0", "1"], ["1, 2", "2"]]
    for _, _, seconds, samples, megabytes in rows:
        assert float(samples) * float(seconds) == pytest.approx(2, abs=0.02)
        assert float(megabytes) > 100
    assert [tuple(batch["masks"].shape) for batch in batches] == [(2, 1, 64, 64)] * 2 + [(2, 2, 64, 64)] * 2
    for batch in batches:
        assert batch["frames"].shape == (2, 3, 3, 64, 64)
        for k, mask in enumerate(batch["masks"].unbind(1), 1):
            assert (mask == (batch["target"][:, 0] == k)).all()


def test_impossible_training_sizes_are_refused(run):
    with pytest.raises(InputError, match="multiple of 16"):
        run(benchmark_training, "--size", 100)


def test_a_killed_process_is_a_lack_of_memory():
    with pytest.raises(MemoryError, match="the process was killed"):
        in_new_process(os._exit, 1)
