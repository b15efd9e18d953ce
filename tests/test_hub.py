"""torch.hub entry points, and the stream example of docs/library.md."""
import re

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT

from dataset.synthetic import draw_clip
from inference.propagation import preprocess_frame, resize_mask
from inference_core import InferenceCore, to_label_map
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from util.cli import InputError


def load(*args, **options):
    return torch.hub.load(str(ROOT), *args, source="local", device="cpu", **options)


@pytest.fixture(scope="module")
def clip():
    """Frames of 96x128 pixels with their masks, in which object 2 is called 7."""
    return [(frame, np.where(mask == 2, 7, mask)) for frame, mask in draw_clip(3, 96, 128, 2, seed=1)]


def label_maps(core, clip, size):
    """What `InferenceCore.step` and the functions around it give for a clip with a mask on its first frame."""
    masks = [resize_mask(clip[0][1], size), *[None] * (len(clip) - 1)]
    return [to_label_map(core.step(preprocess_frame(frame, core.device, size), mask), core.labels, frame.shape[:2])
            for (frame, _), mask in zip(clip, masks, strict=True)]


def test_lite_gives_the_masks_of_an_inference_core(clip):
    new_core = load("lite", size=64, amp=False)
    expected = label_maps(InferenceCore(load_network(LITE_WEIGHTS), 16, 7.0, mem_every=3), clip, (64, 85))
    for core in (new_core(), new_core()):                       # each starts without memory
        found = [core.segment_frame(frame, None if index else mask) for index, (frame, mask) in enumerate(clip)]
        assert core.labels == [1, 7]
        assert all(np.array_equal(labels, wanted) for labels, wanted in zip(found, expected, strict=True))


def test_published_takes_a_file_and_options(clip, weights, network):
    core = load("published", weights=weights, size=None, mem_every=2)(max_memory_frames=3)
    assert (core.top_k, core.kernel_sigma, core.mem_every, core.max_memory_frames) == (50, None, 2, 3)
    expected = label_maps(InferenceCore(network, mem_every=2), clip[:2], (96, 128))
    found = [core.segment_frame(*clip[0]), core.segment_frame(clip[1][0])]
    assert all(np.array_equal(labels, wanted.cpu()) for labels, wanted in zip(found, expected, strict=True))


def test_missing_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model.defaults.published_weights", lambda: None)
    with pytest.raises(InputError, match=r"^saves.propagation_model.pth: .* get it with `python download_model.py`.*$"):
        load("published")



def test_example_of_the_readme(clip, monkeypatch):
    block, = re.findall(r"```python\n([^`]*StreamCore.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(ROOT)
    names = {"clip": [(frame, None if index else mask) for index, (frame, mask) in enumerate(clip)]}
    exec(block, names)
    labels, mask = names["labels"], clip[-1][1]
    assert (labels.shape, labels.dtype) == (mask.shape, np.uint8)
    assert (labels == mask).mean() > 0.9


def test_stream_example(clip, tmp_path, monkeypatch):
    """The example tracks an object from a box that the user drags."""
    block, = re.findall(r"```python\n([^`]*VideoCapture.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    frames, masks = zip(*draw_clip(4, 240, 320, 1, seed=4), strict=True)
    stream, shown = iter(frames), []

    class Camera:
        def __init__(self, index):
            assert index == 0

        def read(self):
            frame = next(stream, None)
            return frame is not None, None if frame is None else frame[..., ::-1].copy()

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(cv2, "selectROI", lambda title, frame: cv2.boundingRect(masks[0]))
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    names = {}
    exec(block.replace("path/to/Mask-Propagation", str(ROOT)), names)
    assert len(shown) == len(frames)
    overlap = (names["labels"] > 0) & (masks[-1] > 0)
    assert overlap.sum() > 0.8 * ((names["labels"] > 0) | (masks[-1] > 0)).sum()


@pytest.mark.parametrize(("frame", "mask"), [
    (np.zeros((96, 128, 3), np.float32), None), (np.zeros((96, 128, 4), np.uint8), None),
    (np.zeros((96, 128), np.uint8), None), (np.zeros((0, 128, 3), np.uint8), None),
    (np.zeros((96, 128, 3), np.uint8), np.zeros((48, 128), np.uint8)),
    (np.zeros((96, 128, 3), np.uint8), np.zeros((96, 128))),
    (np.zeros((96, 128, 3), np.uint8), np.full((96, 128), -7)),
    (np.zeros((96, 128, 3), np.uint8), np.full((96, 128), 700))])
def test_frames_and_masks_of_other_kinds_are_refused(frame, mask):
    with pytest.raises(ValueError, match="it must be"):
        load("lite", size=64)().segment_frame(frame, mask)


@pytest.mark.parametrize("size", [-1, 0, 15])
def test_sizes_below_one_location_are_refused(size):
    with pytest.raises(ValueError, match=f"size is {size}, but it must be at least 16, or None"):
        load("lite", size=size)()
