"""The ONNX files of scripts/export_onnx.py give the masks of PyTorch."""
import sys

import numpy as np
import pytest

from dataset.synthetic import draw_clip
from inference.propagation import preprocess_frame
from inference.stream import StreamCore
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from scripts import export_onnx
from util.cli import InputError

SIZE = 90, 130                  # not multiples of 16


def export(monkeypatch, folder, *arguments):
    monkeypatch.setattr(sys, "argv", ["x", str(folder), *map(str, arguments)])
    export_onnx.main()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite", "published"])
def test_files_give_the_masks_of_pytorch(name, weights, tmp_path, monkeypatch, capsys):
    onnx_core = pytest.importorskip("inference.onnx_core")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = LITE_WEIGHTS if name == "lite" else weights
    size = SIZE if name == "lite" else (114, 130)
    export(monkeypatch, tmp_path, "--model", path, "--size", *size, "--compare", 3)
    assert "% of the pixels have equal labels; seconds per frame: PyTorch " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.onnx" for name in onnx_core.FILES}

    # One and three objects, a memory that overflows, and labels with a gap.
    for objects, options in ((1, {}), (3, {"mem_every": 2, "max_memory_frames": 2})):
        core = StreamCore(load_network(path), size=None, amp=False, **options)
        other = onnx_core.OnnxCore(tmp_path, **options)
        with pytest.raises(ValueError, match="the first frame needs a mask"):
            other.step(np.zeros((*size, 3), np.uint8))
        different = 0
        for index, (frame, mask) in enumerate(draw_clip(6, *size, objects, seed=2)):
            mask = 5 * mask if index == 0 else None
            expected = core.segment_frame(frame, mask)
            different += (other.step(frame, mask) != expected).mean() / 6
            assert len(np.unique(expected)) > 1
            locations = sum(len(block.key) for block in core._groups[0].bank.blocks())
            assert index == 0 or sum(key.shape[1] for key, _ in other.memory) == locations
        assert different < 1e-3
        core, video = StreamCore(load_network(path), size=None, amp=False), list(draw_clip(2, *size, 2, seed=3))
        for frame, mask in ((video[0][0], video[0][1]), (video[1][0], None)):      # another video
            assert (other.step(frame, mask) != core.segment_frame(frame, mask)).mean() < 1e-3
        assert len(other.memory) == 1
    frame, mask = video[0]
    for wrong, message in (((np.zeros((80, 60, 3), np.uint8),), "frame of 60x80 pixels: the files are for "),
                           ((frame[1:],), "the frames before it have another size"),
                           ((frame / 255,), "it must be uint8"),
                           ((frame, mask / 2), "it must be integers from 0 to 255"),
                           ((frame, 300 * mask.astype(int)), "it must be integers from 0 to 255"),
                           ((frame, 0 * mask), "the mask has no object")):
        with pytest.raises(ValueError, match=message):
            other.step(*wrong)
    for options in ({"mem_every": 0}, {"max_memory_frames": 1}):
        with pytest.raises(ValueError, match="must be at least 1, 2"):
            onnx_core.OnnxCore(tmp_path, **options)
    # What is refused changes nothing, and a step that failed can be repeated.
    expected = core.segment_frame(video[0][0])
    for failing in ("memorize", "encode_query", "segment"):
        with monkeypatch.context() as patch:
            patch.setitem(other.sessions, failing, None)
            with pytest.raises(AttributeError):
                other.step(video[0][0])
    assert (other.step(video[0][0]) != expected).mean() < 1e-3
    assert len(other.memory) == 2


def test_normalisation_is_that_of_the_network():
    onnx_core = pytest.importorskip("inference.onnx_core")
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    expected = preprocess_frame(frame, load_network(LITE_WEIGHTS).kv_q_f16.key.scale.device, (16, 16))
    found = (frame / np.float32(255) - onnx_core.MEAN) / onnx_core.STD
    np.testing.assert_allclose(found.transpose(2, 0, 1), expected.numpy(), atol=1e-6)


def test_small_frames_and_missing_packages_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with pytest.raises(InputError, match="--size 32 48: too small, 16 locations of 16x16 pixels are read"):
        export(monkeypatch, tmp_path, "--model", "lite", "--size", 32, 48)
    with pytest.raises(InputError, match="--objects 256: must be at most 255"):
        export(monkeypatch, tmp_path, "--model", "lite", "--compare", 3, "--objects", 256)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="export_onnx.py needs onnxscript; install it with"):
        export(monkeypatch, tmp_path, "--model", "lite")
