"""Equal output for equal weights: numbers that the published system computed."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import needs_compiler

from inference.propagation import preprocess_frame
from inference_core import InferenceCore
from model import memory_reader, winograd

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("propagate_*.npz"))


def propagate(network, golden):
    """The probabilities (K+1, T, H/2, W/2) of a golden file's clip and masks, and the labels of the objects."""
    frames, labels = golden["frames"], golden["labels"]
    top_k, sigma = int(golden["top_k"]), float(golden["kernel_sigma"])
    core = InferenceCore(network, None if top_k < 0 else top_k, None if sigma < 0 else sigma, int(golden["mem_every"]))
    found = np.zeros_like(golden["prob"])
    first = golden["first_frame"] if "first_frame" in golden else np.zeros(len(found) - 1, int)
    for t, frame in enumerate(frames):
        given = np.isin(labels[t], np.flatnonzero(first == t) + 1) * labels[t]
        image = preprocess_frame(frame, core.device, frame.shape[:2])
        probabilities = core.step(image, torch.from_numpy(given) if given.any() else None)[:, ::2, ::2].cpu().numpy()
        for channel, label in enumerate([0, *core.labels]):
            found[label, t] = probabilities[channel]
    return found, core.labels


# How memory is read does not depend on the tiles, so two cases with other numbers of objects suffice for these.
TILES = [pytest.param(case, tiles, marks=pytest.mark.slow)
         for case in ("propagate_late_objects", "propagate_one_object") for tiles in ("SMALL_TILES", "LARGE_TILES")]


@pytest.mark.parametrize(("case", "tiles"), [*((case, "as usual") for case in CASES), *TILES])
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_compiler),
                                      pytest.param(False, marks=[pytest.mark.slow] * (winograd._kernel() is not None))])
def test_probabilities_are_the_published_ones(case, tiles, compiled, network, monkeypatch):
    if not compiled:
        monkeypatch.setattr(winograd, "_kernel", lambda: None)
        monkeypatch.setattr(memory_reader, "_update_top_k", lambda: None)
    if tiles != "as usual":                   # every 3x3 convolution of Conv3x3 by Winograd's algorithm
        monkeypatch.setattr(winograd, "should_use_winograd", lambda x, weight: True)
        monkeypatch.setattr(winograd, "MIN_PIXELS_LARGE_TILES", 0 if tiles == "LARGE_TILES" else 10 ** 9)
    golden = np.load(GOLDEN / f"{case}.npz")
    threads = torch.get_num_threads()
    # Kernels are centred at an argmax. Between nearly equal affinities rounding decides, which depends on the CPU, on
    # the number of threads: on one CPU a centre moved with one thread and not with two.
    for number in (threads, 3 - min(threads, 2)):
        torch.set_num_threads(number)
        found, labels = propagate(network, golden)
        difference = np.abs(found - golden["prob"])
        if difference.max() < 2e-4 or golden["kernel_sigma"] <= 0:
            break
    torch.set_num_threads(threads)
    assert labels == list(range(1, len(found)))
    assert difference.max() < 2e-4
    assert difference.mean() < 2e-5


def test_what_is_saved_has_the_published_names_and_shapes(weights):
    expected = json.loads((GOLDEN / "state_dict.json").read_text())
    saved = torch.load(weights, weights_only=True)
    assert {name: list(value.shape) for name, value in saved.items()} == {
        name: entry["shape"] for name, entry in expected.items()}
    for name, value in saved.items():
        assert value.double().sum().item() == pytest.approx(expected[name]["sum"], abs=1e-3), name
