"""The scripts as users start them: real processes, on small data sets in the benchmarks' layouts."""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.image_io import read_frame, read_mask, write_mask
from dataset.synthetic import write_clip
from inference.propagation import preprocess_frame
from inference_core import InferenceCore, to_label_map
from model.defaults import LITE_WEIGHTS
from model.variants import published_network
from util.files import TEMPORARY
from util.palette import davis_palette

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH, FRAMES = 64, 96, 4


def start(*command, **options):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **options.pop("env", {})}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def call(*command, code=0, **options):
    process = start(*command, **options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out, err


def content(folder):
    """Every file below the folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def draw(folder, name, images, masks, seed, objects=2, frames=FRAMES, binary=False):
    """One drawn video in a benchmark's folders."""
    write_clip(folder / "drawn", frames=frames, height=HEIGHT, width=WIDTH, objects=objects, seed=seed)
    for kind, target in (("frames", images / name), ("masks", masks / name)):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "drawn" / kind, target)
    if binary:
        for path in (masks / name).iterdir():
            write_mask(path, (read_mask(path) > 0).astype(np.uint8) * 255, None)


@pytest.fixture(scope="module")
def davis16(tmp_path_factory):
    root = tmp_path_factory.mktemp("DAVIS") / "2016"
    lines = []
    for seed, name in enumerate(("bear", "cow", "dog")):
        draw(root, name, root / "JPEGImages/480p", root / "Annotations/480p", seed, binary=True)
        lines += [f"/JPEGImages/480p/{name}/{i:05d}.jpg /Annotations/480p/{name}/{i:05d}.png" for i in range(FRAMES)]
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def undisturbed16(davis16, weights, tmp_path_factory):
    """What an undisturbed run writes and prints."""
    output = tmp_path_factory.mktemp("undisturbed")
    out, _ = call("eval_davis_2016.py", "--davis", davis16, "--model", weights, "--output", output)
    return output, out


def expected_masks(frames, given, network, values):
    """Label maps straight from the core; ``given``: mask by frame index."""
    core, maps = InferenceCore(network), []
    for index, path in enumerate(frames):
        frame = read_frame(path)
        mask = torch.from_numpy(given[index]) if index in given else None
        probabilities = core.step(preprocess_frame(frame, core.device, frame.shape[:2]), mask)
        labels = [values[label] for label in core.labels]
        maps.append(to_label_map(probabilities, labels, frame.shape[:2]).cpu().numpy())
    return maps


def test_davis_2016(davis16, undisturbed16, network):
    output, printed = undisturbed16
    assert sorted(path.name for path in output.iterdir()) == [".settings", "bear", "cow", "dog", "scores.csv"]
    for line in ("Total processing time: ", "Total processed frames: 12", "FPS: ", "overall"):
        assert line in printed
    for name in ("bear", "cow", "dog"):
        frames = sorted((davis16 / "JPEGImages/480p" / name).iterdir())
        given = {0: (read_mask(davis16 / "Annotations/480p" / name / "00000.png") > 0) * 1}
        for path, expected in zip(frames, expected_masks(frames, given, network, {1: 255}), strict=True):
            written = Image.open(output / name / f"{path.stem}.png")
            assert written.mode == "L"
            assert (np.asarray(written) != expected).mean() < 1e-3
    scores = [line.split(",") for line in (output / "scores.csv").read_text().splitlines()[1:]]
    assert [row[:2] for row in scores] == [["bear", "255"], ["cow", "255"], ["dog", "255"]]
    for name, *_, j, f in scores:                       # J against its definition, over all but first and last
        overlap = []
        for index in range(1, FRAMES - 1):
            truth = read_mask(davis16 / "Annotations/480p" / name / f"{index:05d}.png") > 0
            found = read_mask(output / name / f"{index:05d}.png") > 0
            overlap.append((truth & found).sum() / (truth | found).sum())
        assert float(j) == pytest.approx(100 * np.mean(overlap), abs=1e-2)
        assert 0 <= float(f) <= 100


def test_the_2017_folders_list_comes_first(davis16, weights, tmp_path):
    (tmp_path / "2016").symlink_to(davis16)
    listed = tmp_path / "2017/trainval/ImageSets/2016/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("cow\n")
    call("eval_davis_2016.py", "--davis", tmp_path / "2016", "--model", weights, "--output", tmp_path / "out",
         "--no_score")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".settings", "cow"]


def test_finished_videos_are_skipped_and_overwritten_on_demand(davis16, weights, undisturbed16, tmp_path):
    shutil.copytree(undisturbed16[0], tmp_path / "out")
    stamp = (tmp_path / "out/cow/00000.png").stat().st_mtime_ns
    command = ("eval_davis_2016.py", "--davis", davis16, "--model", weights, "--output", tmp_path / "out")
    shutil.rmtree(tmp_path / "out/bear")
    out, _ = call(*command)
    assert "2 of 3 videos were finished already" in out
    assert (tmp_path / "out/cow/00000.png").stat().st_mtime_ns == stamp
    assert content(tmp_path / "out") == content(undisturbed16[0])
    _, err = call(*command, "--no_top", code=2)
    assert "bear: was made with other settings (top_k was 50, is None)" in err
    call(*command, "--overwrite", "--no_score")
    assert (tmp_path / "out/cow/00000.png").stat().st_mtime_ns > stamp
    assert content(tmp_path / "out") == content(undisturbed16[0])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_is_finished_by_the_next(davis16, weights, undisturbed16, tmp_path, how):
    command = ("eval_davis_2016.py", "--davis", davis16, "--model", weights, "--output", tmp_path)
    process = start(*command)
    deadline = time.time() + 120
    # A mask is there, and not just the folder: a signal in the instant between making and holding it leaves it empty.
    while not any(tmp_path.glob(f".cow{TEMPORARY}/*")) and process.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert (tmp_path / "bear").is_dir()
    assert not (tmp_path / "dog").exists()
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        assert "Traceback" not in err
        assert not (tmp_path / f".cow{TEMPORARY}").exists()
    call(*command)
    assert content(tmp_path) == content(undisturbed16[0])
    assert not list(tmp_path.glob(".*partial*"))


def test_processes_share_the_videos(davis16, weights, undisturbed16, tmp_path):
    out, _ = call("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "eval_davis_2016.py", "--davis",
                  davis16, "--model", weights, "--output", tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert out.count("Total processed frames: 12") == 1
    assert out.count("overall") == 1
    ours, theirs = content(tmp_path), content(undisturbed16[0])
    assert ours.keys() == theirs.keys()
    for name in ours:         # one thread instead of two may round differently
        assert (read_mask(tmp_path / name) != read_mask(undisturbed16[0] / name)).mean() < 1e-3


def test_benchmarks_run_with_lite_too(davis16, tmp_path):
    out, _ = call("eval_davis_2016.py", "--davis", davis16, "--model", LITE_WEIGHTS, "--output", tmp_path / "d16")
    assert out.startswith("network: lite (")
    assert "overall" in out
    root = tmp_path / "2017/trainval"
    draw(root, "pair", root / "JPEGImages/480p", root / "Annotations/480p", seed=5)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("pair\n")
    call("eval_davis.py", "--davis", root.parent, "--model", LITE_WEIGHTS, "--output", tmp_path / "d17")
    draw(tmp_path / "yv", "pair", tmp_path / "yv/all_frames/valid_all_frames/JPEGImages",
         tmp_path / "yv/valid/Annotations", seed=5)
    call("eval_youtube.py", "--yv", tmp_path / "yv", "--model", LITE_WEIGHTS, "--output", tmp_path / "yv_out")
    for folder, names in (("d16", ("bear", "cow", "dog")), ("d17", ("pair",)), ("yv_out", ("pair",))):
        for name in names:
            masks = [read_mask(path) for path in sorted((tmp_path / folder / name).glob("*.png"))]
            assert [mask.shape for mask in masks] == [(HEIGHT, WIDTH)] * FRAMES
            assert all(mask.any() for mask in masks)


def test_davis_2017_renumbers_objects_and_keeps_the_palette(weights, network, tmp_path):
    root = tmp_path / "2017/trainval"
    draw(root, "pair", root / "JPEGImages/480p", root / "Annotations/480p", seed=5)
    first = root / "Annotations/480p/pair/00000.png"
    original = read_mask(first)
    write_mask(first, np.array([0, 4, 9], np.uint8)[original], davis_palette())
    (root / "Annotations/480p/pair/00002.png").unlink()
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("pair\n")
    out, _ = call("eval_davis.py", "--davis", root.parent, "--model", weights, "--output", tmp_path / "out")
    assert "No scores" in out                                              # a frame's truth is missing
    frames = sorted((root / "JPEGImages/480p/pair").iterdir())
    for path, expected in zip(frames, expected_masks(frames, {0: original}, network, {1: 1, 2: 2}), strict=True):
        written = Image.open(tmp_path / "out/pair" / f"{path.stem}.png")
        assert written.mode == "P"
        assert bytes(written.getpalette()).ljust(768, b"\0") == davis_palette()
        assert (np.asarray(written) != expected).mean() < 1e-3


def test_youtube_objects_appear_late_and_keep_their_labels(weights, tmp_path):
    images, annotations = tmp_path / "all_frames/valid_all_frames/JPEGImages", tmp_path / "valid/Annotations"
    draw(tmp_path, "late", images, annotations, seed=6, frames=5)
    labels = {path.stem: read_mask(path) for path in sorted((annotations / "late").iterdir())}
    for stem, mask in labels.items():
        path = annotations / "late" / f"{stem}.png"
        if stem == "00001":
            write_mask(path, np.uint8((mask == 1) * 7), davis_palette())
        elif stem == "00003":
            write_mask(path, np.uint8((mask == 2) * 3), davis_palette())
        elif stem == "00002":
            write_mask(path, np.zeros_like(mask, np.uint8), davis_palette())        # just a frame
        else:
            path.unlink()
    call("eval_youtube.py", "--yv", tmp_path, "--model", weights, "--output", tmp_path / "out")
    written = {path.stem: np.asarray(Image.open(path)) for path in sorted((tmp_path / "out/late").iterdir())}
    assert list(written) == ["00001", "00002", "00003", "00004"]
    assert all(mask.shape == (HEIGHT, WIDTH) for mask in written.values())
    assert set(np.unique(written["00001"])) == {0, 7}
    assert not np.isin(3, written["00002"])
    assert set(np.unique(np.concatenate([written["00003"], written["00004"]]))) <= {0, 3, 7}
    for stem, label, value in (("00001", 1, 7), ("00003", 2, 3)):     # as given, but for what resizing moves
        assert ((written[stem] == value) == (labels[stem] == label)).mean() > 0.98


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", frames=6, height=HEIGHT, width=WIDTH, objects=2, seed=1)
    return tmp_path / "clip"


def propagate(clip, weights, output, *more, code=0, masks="masks/00000.png"):
    return call("propagate.py", "--images", clip / "frames", "--masks", clip / masks, "--model", weights, "--size", -1,
                "--output", output, *more, code=code)


def test_propagate_forward_is_the_benchmarks_road(clip, weights, network, tmp_path):
    out, err = propagate(clip, weights, tmp_path / "out", "--overlay")
    assert "6 of 6 frames" in out
    assert "frames/s" in err
    frames = sorted((clip / "frames").iterdir())
    expected = expected_masks(frames, {0: read_mask(clip / "masks/00000.png")}, network, {1: 1, 2: 2})
    for path, mask in zip(frames, expected, strict=True):
        assert (np.asarray(Image.open(tmp_path / "out" / f"{path.stem}.png")) != mask).mean() < 1e-3
    assert (tmp_path / "out/overlay/overlay.mp4").stat().st_size > 1000
    assert Image.open(tmp_path / "out/overlay/contact_sheet.png").size[0] == 4 * 320


def test_propagate_backward_is_forward_on_the_reversed_clip(clip, weights, tmp_path):
    (clip / "reversed").mkdir()
    for index in range(6):
        shutil.copy(clip / f"frames/{index:05d}.jpg", clip / f"reversed/{5 - index:05d}.jpg")
    shutil.copy(clip / "masks/00004.png", clip / "00001.png")
    propagate(clip, weights, tmp_path / "backward", "--direction", "backward", masks="masks/00004.png")
    call("propagate.py", "--images", clip / "reversed", "--masks", clip / "00001.png", "--model", weights,
         "--size", "-1", "--output", tmp_path / "forward")
    backward, forward = content(tmp_path / "backward"), content(tmp_path / "forward")
    assert sorted(backward) == [f"{index:05d}.png" for index in range(5)]
    for index in range(5):
        assert backward[f"{index:05d}.png"] == forward[f"{5 - index:05d}.png"]


def test_propagate_both_ways_takes_the_nearest_mask(clip, weights, tmp_path):
    given = clip / "given"
    given.mkdir()
    for index in (1, 4):
        shutil.copy(clip / f"masks/{index:05d}.png", given)
    for direction in ("forward", "backward", "both"):
        propagate(clip, weights, tmp_path / direction, "--direction", direction, masks="given")
    both, forward, backward = (content(tmp_path / name) for name in ("both", "forward", "backward"))
    assert len(both) == 6
    for index, source in enumerate((backward, forward, forward, backward, forward, forward)):
        name = f"{index:05d}.png"
        assert both[name] == source[name], name


def test_propagate_a_video_file(clip, weights, tmp_path):
    import cv2
    writer = cv2.VideoWriter(str(clip / "my clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (WIDTH, HEIGHT))
    for path in sorted((clip / "frames").iterdir()):
        writer.write(cv2.imread(str(path)))
    writer.release()
    call("propagate.py", "--video", clip / "my clip.mp4", "--masks", clip / "masks/00000.png", "--model", weights,
         "--size", "64", "--output", tmp_path / "out", "--direction", "both", "--overlay", "--max_memory_frames", "2")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [f"{i:05d}.png" for i in range(6)]
    assert np.array_equal(read_mask(tmp_path / "out/00000.png"), read_mask(clip / "masks/00000.png"))


def broken(clip, weights, tmp_path, what):
    """Break something; returns what to change in the command, and what the one line must name."""
    frame, mask = clip / "frames/00003.jpg", clip / "masks/00000.png"
    if what == "missing folder":
        return {"--images": clip / "nowhere"}, "nowhere: no such folder"
    if what == "empty folder":
        (clip / "empty").mkdir()
        return {"--images": clip / "empty"}, "empty: no images"
    if what == "empty video":
        (clip / "empty.mp4").touch()
        return {"--images": None, "--video": clip / "empty.mp4"}, "empty.mp4: not a video"
    if what == "truncated frame":
        frame.write_bytes(frame.read_bytes()[:700])
        return {}, "00003.jpg: cannot be read"
    if what == "frame of another size":
        Image.new("RGB", (WIDTH, HEIGHT + 2)).save(frame)
        return {}, "00003.jpg: 96x66 pixels"
    if what == "tiny frames":
        for path in (clip / "frames").iterdir():
            Image.new("RGB", (12, 8)).save(path)
        Image.fromarray(np.ones((8, 12), np.uint8)).save(mask)
        return {}, "00000.jpg: 12x8 pixels"
    if what == "truncated mask":
        mask.write_bytes(mask.read_bytes()[:100])
        return {}, "00000.png: cannot be read"
    if what == "mask of another shape":
        Image.new("L", (WIDTH, WIDTH), 1).save(mask)
        return {}, "00000.png: the mask is 96x96 pixels, its frame 96x64"
    if what == "mask without object":
        Image.new("L", (WIDTH, HEIGHT)).save(mask)
        return {}, "00000.png: no object"
    if what == "smooth mask":
        ramp = np.arange(WIDTH, dtype=np.uint8)[None].repeat(HEIGHT, 0)
        Image.fromarray(ramp).save(mask)
        return {}, "00000.png: holds 96 different values"
    if what == "mask after no frame":
        shutil.copy(mask, clip / "masks/00077.png")
        return {"--masks": clip / "masks"}, "00077.png: a mask named after no frame"
    if what == "missing weights":
        return {"--model": tmp_path / "none.pth"}, "none.pth: no such weights file"
    if what == "no weights":
        (tmp_path / "text.pth").write_text("hello")
        return {"--model": tmp_path / "text.pth"}, "text.pth: not a readable PyTorch weights file"
    if what == "truncated weights":
        (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:1_000_000])
        return {"--model": tmp_path / "cut.pth"}, "cut.pth: not a readable PyTorch weights file"
    if what == "weights of another network":
        torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
        return {"--model": tmp_path / "other.pth"}, "other.pth: weights of another network (lacks 597 tensors such as"
    if what == "output in a file":
        return {"--output": mask / "out"}, "cannot write there"
    if what == "output over the input":
        return {"--output": clip / "frames", "--overwrite": ""}, "frames: holds frames or masks that are read"
    if what == "damaged weights":
        state = torch.load(weights, weights_only=True)
        state["decoder.pred.bias"].fill_(float("nan"))
        torch.save(state, tmp_path / "nan.pth")
        return {"--model": tmp_path / "nan.pth"}, "nan.pth: decoder.pred.bias is not made of finite numbers"
    if what == "absent device":
        return {"--device": "cuda:99"}, "--device cuda:99: not available"
    raise AssertionError(what)


@pytest.mark.parametrize("what", [
    "missing folder", "empty folder", "empty video", "truncated frame", "frame of another size", "tiny frames",
    "truncated mask", "mask of another shape", "mask without object", "smooth mask", "mask after no frame",
    "missing weights", "no weights", "truncated weights", "weights of another network", "output in a file",
    "output over the input", "absent device", "damaged weights"])
def test_bad_input_gets_one_line(clip, weights, tmp_path, what):
    changes, message = broken(clip, weights, tmp_path, what)
    arguments = {"--images": clip / "frames", "--masks": clip / "masks/00000.png", "--model": weights,
                 "--output": tmp_path / "out", **changes}
    before = sorted(tmp_path.rglob("*"))
    _, err = call("propagate.py", *[part for flag, value in arguments.items() if value is not None
                                    for part in (flag, value) if part != ""], code=2)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert message in errors[0]
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_video_does_not_stop_the_others(davis16, weights, undisturbed16, tmp_path):
    root = shutil.copytree(davis16, tmp_path / "2016")
    frame = root / "JPEGImages/480p/bear/00002.jpg"
    frame.write_bytes(frame.read_bytes()[:500])
    out, err = call("eval_davis_2016.py", "--davis", root, "--model", weights, "--output", tmp_path / "out", code=2)
    assert "bear/00002.jpg: cannot be read" in err
    assert "1 of 3 videos failed: bear" in err
    whole = content(undisturbed16[0])
    assert content(tmp_path / "out") == {name: data for name, data in whole.items() if not name.startswith("bear")}
    assert "overall" in out


def test_other_peoples_folders_are_left_alone(davis16, weights, tmp_path):
    (tmp_path / "bear").mkdir()
    (tmp_path / "bear/thesis.txt").write_text("years of work")
    _, err = call("eval_davis_2016.py", "--davis", davis16, "--model", weights, "--output", tmp_path,
                  "--overwrite", code=2)
    assert "bear: holds something that is no mask of this clip (thesis.txt)" in err
    assert (tmp_path / "bear/thesis.txt").read_text() == "years of work"


def test_a_broken_true_mask_costs_one_score(davis16, weights, undisturbed16, tmp_path):
    root = shutil.copytree(davis16, tmp_path / "2016")
    shutil.copytree(undisturbed16[0], tmp_path / "out")
    Image.new("L", (9, 9)).save(root / "Annotations/480p/cow/00002.png")
    out, err = call("eval_davis_2016.py", "--davis", root, "--model", weights, "--output", tmp_path / "out")
    assert "cow is not scored" in err
    assert "00002.png: the true mask is 9x9 pixels, its frame 96x64" in err
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["bear", "dog", "overall"]


@pytest.mark.parametrize("script", ["eval_davis.py", "eval_davis_2016.py", "eval_youtube.py"])
def test_a_missing_data_set_gets_one_line(script, weights, tmp_path):
    flag = "--yv" if "youtube" in script else "--davis"
    _, err = call(script, flag, tmp_path / "nowhere", "--model", weights, "--output", tmp_path / "out", code=2)
    assert len(err.splitlines()) == 1
    assert "nowhere" in err


@pytest.mark.parametrize("script", ["propagate.py", "eval_davis.py", "eval_davis_2016.py", "eval_youtube.py"])
def test_help_explains_every_flag(script):
    out, _ = call(script, "--help")
    for flag in ("--model", "--output", "--use_km", "--no_top", "--top_k", "--mem_every", "--device", "--amp",
                 "--tf32", "--num_workers"):
        assert flag in out
    assert "default: saves/propagation_model.pth" in out


def test_a_training_checkpoint_loads_too(clip, weights, tmp_path):
    torch.save({"it": 5, "network": torch.load(weights, weights_only=True)}, tmp_path / "checkpoint.pth")
    propagate(clip, weights, tmp_path / "plain")
    propagate(clip, tmp_path / "checkpoint.pth", tmp_path / "checkpoint")
    assert content(tmp_path / "plain") == content(tmp_path / "checkpoint")


def test_weights_that_want_to_run_code_are_refused(clip, tmp_path):
    torch.save(published_network(), tmp_path / "pickled.pth")              # a whole module, not its tensors
    _, err = propagate(clip, tmp_path / "pickled.pth", tmp_path / "out", code=2)
    assert "pickled.pth: not a readable PyTorch weights file" in err
