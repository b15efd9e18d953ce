"""propagate.py and its arguments, on drawn clips."""
import argparse
import os
import resource
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT, command
from PIL import Image

import propagate as script
from dataset.image_io import read_frame, read_mask
from dataset.synthetic import write_clip
from inference import propagation
from inference.arguments import add_arguments
from inference.propagation import PropagationConfig, preprocess_frame
from inference_core import InferenceCore, to_label_map
from model import defaults
from model.checkpoint import load_network
from model.variants import build, lite_network
from util import progress
from util.cli import InputError, Interrupted

HEIGHT, WIDTH, FRAMES = 64, 96, 6


@pytest.fixture(scope="module")
def lite():
    return load_network(defaults.LITE_WEIGHTS, "cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", frames=FRAMES, height=HEIGHT, width=WIDTH, objects=2, seed=1)
    return tmp_path / "clip"


@pytest.fixture
def propagate(clip, lite, monkeypatch, capsys):
    """Calls main(); flags that are not given get a default, those that are None are left out."""
    def propagate(output, network=lite, **flags):
        flags = {"images": clip / "frames", "masks": clip / "masks/00000.png", "size": -1, "model": "lite",
                 "output": output, **flags}
        arguments = [str(part) for flag, value in flags.items() if value is not None
                     for part in ((f"--{flag}",) if value is True else (f"--{flag}", value))]
        monkeypatch.setattr(sys, "argv", ["propagate.py", *arguments])
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1000)
        if network is not None:
            monkeypatch.setattr(propagation, "load_for_propagation", lambda path, device: network)
        script.main()
        return capsys.readouterr()
    return propagate


def masks_in(folder):
    """The bytes of all masks in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_forward_is_what_the_core_computes(clip, propagate, lite, tmp_path):
    printed = propagate(tmp_path / "out", overlay=True, no_amp=True).out
    assert f"6 of 6 frames have a mask: {tmp_path}/out (" in printed
    assert "frames/s on" in printed
    _, top_k, kernel_sigma, mem_every, _ = defaults.INFERENCE_DEFAULTS["lite"]
    core = InferenceCore(lite, top_k, kernel_sigma, mem_every)
    for path in sorted((clip / "frames").iterdir()):
        frame = read_frame(path)
        mask = torch.from_numpy(read_mask(clip / "masks/00000.png")) if path.stem == "00000" else None
        probabilities = core.step(preprocess_frame(frame, core.device, frame.shape[:2]), mask)
        expected = to_label_map(probabilities, [1, 2], frame.shape[:2]).cpu().numpy()
        assert (np.asarray(Image.open(tmp_path / f"out/{path.stem}.png")) != expected).mean() < 1e-3
    assert (tmp_path / "out/overlay/overlay.mp4").stat().st_size > 1000
    assert Image.open(tmp_path / "out/overlay/contact_sheet.png").size[0] == 4 * 320


def test_backward_is_forward_on_the_reversed_clip(clip, propagate, tmp_path):
    (clip / "reversed").mkdir()
    for index in range(FRAMES):
        shutil.copy(clip / f"frames/{index:05d}.jpg", clip / f"reversed/{5 - index:05d}.jpg")
    shutil.copy(clip / "masks/00004.png", clip / "00001.png")
    warned = propagate(tmp_path / "backward", direction="backward", masks=clip / "masks/00004.png").err
    assert "warning: 1 frames after the last mask get none; use --direction both" in warned
    propagate(tmp_path / "forward", images=clip / "reversed", masks=clip / "00001.png")
    backward, forward = masks_in(tmp_path / "backward"), masks_in(tmp_path / "forward")
    assert sorted(backward) == [f"{index:05d}.png" for index in range(5)]
    for index in range(5):
        assert backward[f"{index:05d}.png"] == forward[f"{5 - index:05d}.png"]


def test_both_takes_the_nearest_mask(clip, propagate, tmp_path):
    masks = clip / "annotated"
    masks.mkdir()
    for index in (1, 4):
        shutil.copy(clip / f"masks/{index:05d}.png", masks)
    for direction in ("forward", "backward", "both"):
        propagate(tmp_path / direction, direction=direction, masks=masks)
    both, forward, backward = (masks_in(tmp_path / name) for name in ("both", "forward", "backward"))
    assert len(both) == 6
    for index, source in enumerate((backward, forward, forward, backward, forward, forward)):
        assert both[f"{index:05d}.png"] == source[f"{index:05d}.png"], index


def test_a_video_file(clip, propagate, tmp_path):
    writer = cv2.VideoWriter(str(clip / "my clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (WIDTH, HEIGHT))
    for path in sorted((clip / "frames").iterdir()):
        writer.write(cv2.imread(str(path)))
    writer.release()
    propagate(tmp_path / "out", images=None, video=clip / "my clip.mp4", size=64, direction="both", overlay=True,
              max_memory_frames=2)
    assert sorted(masks_in(tmp_path / "out")) == [f"{index:05d}.png" for index in range(FRAMES)]
    assert np.array_equal(read_mask(tmp_path / "out/00000.png"), read_mask(clip / "masks/00000.png"))


@pytest.mark.parametrize("error", [ValueError("unexpected"), Interrupted(2)])
def test_masks_are_kept_whatever_ends_the_overlay(propagate, tmp_path, monkeypatch, error):
    def fail(video, palette, folder, *_):
        raise error
    monkeypatch.setattr("inference.overlay.write_overlay", fail)
    with pytest.raises((InputError, Interrupted)) as raised:
        propagate(tmp_path / "out", overlay=True)
    assert raised.value is error or "the overlay was not written: unexpected" in str(raised.value)
    assert len(masks_in(tmp_path / "out")) == FRAMES
    assert not (tmp_path / "out/overlay").exists()


def test_masks_are_kept_if_only_the_overlay_does_not_fit(propagate, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"masks are complete, but the overlay was not written: .*overlay\.mp4"):
            propagate(tmp_path / "out", overlay=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(masks_in(tmp_path / "out")) == FRAMES
    assert not (tmp_path / "out/overlay").exists()


def test_a_name_that_crashes_opencv_is_refused_before_the_work(propagate, tmp_path, monkeypatch):
    monkeypatch.setattr(InferenceCore, "step", pytest.fail)
    with pytest.raises(InputError, match="OpenCV cannot open names that are not UTF-8"):
        propagate(tmp_path / os.fsdecode(b"out\xff"), overlay=True)


def test_users_frames_are_rotated_as_viewers_show_them(clip, propagate, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (clip / "frames").iterdir():
        image = Image.open(path)
        image.rotate(90, expand=True).save(path, exif=exif)
    propagate(tmp_path / "out")
    assert read_mask(tmp_path / "out/00003.png").shape == (HEIGHT, WIDTH)


def broken(clip, tmp_path, what):
    """Break something; returns flags to change, and what the message must contain."""
    frame, mask = clip / "frames/00003.jpg", clip / "masks/00000.png"
    if what == "missing folder":
        return {"images": clip / "nowhere"}, "nowhere: no such folder"
    if what == "empty folder":
        (clip / "empty").mkdir()
        return {"images": clip / "empty"}, "empty: no images"
    if what == "empty video":
        (clip / "empty.mp4").touch()
        return {"images": None, "video": clip / "empty.mp4"}, "empty.mp4: not a video"
    if what == "truncated frame":
        frame.write_bytes(frame.read_bytes()[:700])
        return {}, "00003.jpg: cannot be read"
    if what == "frame of another size":
        Image.new("RGB", (WIDTH, HEIGHT + 2)).save(frame)
        return {}, "00003.jpg: 96x66 pixels, the frames before it 96x64"
    if what == "tiny frames":
        for path in (clip / "frames").iterdir():
            Image.new("RGB", (12, 8)).save(path)
        return {}, "00000.jpg: 12x8 pixels; frames need at least 16 on both sides"
    if what == "truncated mask":
        mask.write_bytes(mask.read_bytes()[:100])
        return {}, "00000.png: cannot be read"
    if what == "mask of another shape":
        Image.new("L", (WIDTH, WIDTH), 1).save(mask)
        return {}, "00000.png: the mask is 96x96 pixels, its frame 96x64"
    if what == "mask without object":
        Image.new("L", (WIDTH, HEIGHT)).save(mask)
        return {}, "00000.png: no object in this mask, all pixels are 0"
    if what == "too many objects":
        Image.fromarray(np.kron(np.arange(66).reshape(6, 11), np.ones((10, 8))).astype(np.uint8)).save(mask)
        return {}, "00000.png: has 65 objects, the limit is 64"
    if what == "object lost by resizing":
        labels = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
        labels[2, 2] = 1
        Image.fromarray(labels).save(mask)
        return {}, "00000.png: no object in this mask, its objects are too small for the size of the frame"
    if what == "too many objects together":
        for index, first in ((0, 1), (3, 41)):
            labels = np.kron(np.arange(first, first + 40).reshape(5, 8), np.ones((12, 12)))
            labels = np.pad(labels, ((0, HEIGHT - 60), (0, 0))).astype(np.uint8)
            Image.fromarray(labels).save(clip / f"masks/{index:05d}.png")
        return {"masks": clip / "masks"}, "masks: the masks have 80 objects together, the limit is 64"
    if what == "mask of no frame":
        shutil.copy(mask, clip / "masks/00077.png")
        return {"masks": clip / "masks"}, "00077.png: no frame has this name"
    if what == "missing weights":
        return {"model": tmp_path / "none.pth"}, "none.pth: no such weights file"
    if what == "text as weights":
        (tmp_path / "text.pth").write_text("hello")
        return {"model": tmp_path / "text.pth"}, "text.pth: not a readable PyTorch weights file"
    if what == "truncated weights":
        (tmp_path / "cut.pth").write_bytes(defaults.LITE_WEIGHTS.read_bytes()[:1_000_000])
        return {"model": tmp_path / "cut.pth"}, "cut.pth: not a readable PyTorch weights file"
    if what == "weights of another network":
        torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
        return {"model": tmp_path / "other.pth"}, "other.pth: weights of another network"
    if what == "weights with code":
        torch.save(lite_network(), tmp_path / "pickled.pth")             # a whole module, not its tensors
        return {"model": tmp_path / "pickled.pth"}, "pickled.pth: not a readable PyTorch weights file"
    if what == "damaged weights":
        state = torch.load(defaults.LITE_WEIGHTS, weights_only=True)
        state["decoder.pred.bias"].fill_(float("nan"))
        torch.save(state, tmp_path / "nan.pth")
        return {"model": tmp_path / "nan.pth"}, "nan.pth: decoder.pred.bias"
    if what == "output in a file":
        return {"output": mask / "out"}, "cannot write there"
    if what == "output over the input":
        return {"output": clip / "frames", "overwrite": True}, "frames: holds frames or masks that are read"
    if what == "absent device":
        return {"device": "cuda:99"}, "--device cuda:99: not available"
    raise AssertionError(what)


@pytest.mark.parametrize("what", [
    "missing folder", "empty folder", "empty video", "truncated frame", "frame of another size", "tiny frames",
    "truncated mask", "mask of another shape", "mask without object", "object lost by resizing",
    "too many objects", "too many objects together", "mask of no frame",
    "missing weights", "text as weights", "truncated weights", "weights of another network", "weights with code",
    "damaged weights", "output in a file", "output over the input", "absent device"])
def test_bad_input_is_named_and_nothing_is_written(clip, propagate, lite, tmp_path, what):
    changes, message = broken(clip, tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as error:
        propagate(**{"output": tmp_path / "out", "network": None if "model" in changes else lite, **changes})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_bad_input_ends_a_process_with_one_line(clip, tmp_path):
    run = subprocess.run(command("propagate.py", "--images", clip / "frames", "--masks", clip / "masks/none.png"),
                         cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == f"error: {clip}/masks/none.png: no such file or folder\n"


def test_a_training_checkpoint_is_loaded_too(propagate, tmp_path):
    state = torch.load(defaults.LITE_WEIGHTS, weights_only=True)
    torch.save({"it": 5, "network": state}, tmp_path / "checkpoint.pth")
    propagate(tmp_path / "plain")
    propagate(tmp_path / "checkpoint", None, model=tmp_path / "checkpoint.pth")
    assert masks_in(tmp_path / "plain") == masks_in(tmp_path / "checkpoint")


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser, size=480)
    return parser.parse_args([*map(str, arguments)])


def test_published_and_lite_are_names_of_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(defaults, "__file__", str(tmp_path / "code/model/defaults.py"))
    assert parse().model == parse("--model", "lite").model == defaults.LITE_WEIGHTS
    with pytest.raises(SystemExit):
        parse("--model", "published")
    message = "saves/propagation_model.pth does not exist; get it with `python download_model.py`"
    assert message in capsys.readouterr().err
    for folder in (tmp_path / "code", tmp_path):
        (folder / "saves").mkdir(parents=True)
        (folder / "saves/propagation_model.pth").touch()
        for model in (parse().model, parse("--model", "published").model):
            assert model.resolve() == folder / "saves/propagation_model.pth"
    assert parse("--model", "other.pth").model.name == "other.pth"


@pytest.mark.parametrize(("variant", "flags", "sigma"), [
    ("published", (), None), ("published", ("--use_km",), 5.6), ("published", ("--no_km",), None),
    ("lite", (), 7.0), ("lite", ("--use_km",), 7.0), ("lite", ("--no_km",), None)])
def test_kernelized_reading_is_by_the_networks_default_or_as_asked(variant, flags, sigma):
    assert PropagationConfig.from_args(parse(*flags), build(variant)).kernel_sigma == sigma


@pytest.mark.parametrize(("variant", "instruction", "flags", "amp"), [
    ("lite", "avx512_bf16", (), True), ("lite", "amx_bf16", (), True), ("lite", "avx512_f", (), False),
    ("lite", "avx512_bf16", ("--no_amp",), False), ("lite", "avx512_f", ("--amp",), True),
    ("published", "avx512_bf16", (), False), ("published", "avx512_f", ("--amp",), True)])
def test_lite_computes_in_16_bits_where_the_cpu_has_the_instructions(monkeypatch, capsys, variant, instruction, flags,
                                                                    amp):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True}, raising=False)
    assert PropagationConfig.from_args(parse(*flags), build(variant)).amp is amp
    warned = "warning: --amp: PyTorch reports no bfloat16 instructions of this CPU" in capsys.readouterr().err
    assert warned is (flags == ("--amp",))             # here only for a CPU without them


def test_sizes_are_by_the_networks_default_or_as_asked():
    published, lite = build("published"), build("lite")
    for arguments, network, size in ((("--size", 240), lite, 240), (("--size", -1), lite, None), ((), published, 480)):
        assert PropagationConfig.from_args(parse(*arguments), network).size == size
    for bad in ("--use_km --no_km", "--no_top --top_k 5", "--size 15", "--size x"):
        with pytest.raises(SystemExit):
            parse(*bad.split())


def test_help_explains_every_flag():
    run = subprocess.run(command("propagate.py", "--help"), cwd=ROOT, capture_output=True, text=True, check=True)
    for flag in ("--video", "--images", "--masks", "--model", "--output", "--direction", "--overlay", "--overwrite",
                 "--use_km", "--no_km", "--no_top", "--top_k", "--mem_every", "--device", "--amp", "--no_amp", "--tf32",
                 "--num_workers"):
        assert flag in run.stdout
    assert "saves/propagation_model.pth if it exists, else lite" in " ".join(run.stdout.split())
