"""The benchmark scripts on small data sets in the benchmarks' layouts."""
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import ROOT, command, free_port
from PIL import Image

from dataset.davis import davis_2017
from dataset.image_io import read_frame, read_mask, write_mask
from dataset.synthetic import write_clip
from dataset.youtube import youtube_vos
from inference import evaluation
from inference.propagation import PropagationConfig, preprocess_frame
from inference_core import InferenceCore, to_label_map
from model.checkpoint import load_network
from model.defaults import INFERENCE_DEFAULTS, LITE_WEIGHTS
from model.variants import build
from util.cli import InputError
from util.files import TEMPORARY, lock
from util.palette import davis_palette

HEIGHT, WIDTH, FRAMES = 64, 96, 4
VIDEOS = ("bear", "cow", "dog")


def draw(folder, name, images, masks, seed, frames=FRAMES, binary=False):
    """A drawn video with two objects in the folders of a benchmark."""
    write_clip(folder / "drawn", frames=frames, height=HEIGHT, width=WIDTH, objects=2, seed=seed)
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
    for seed, name in enumerate(VIDEOS):
        draw(root, name, root / "JPEGImages/480p", root / "Annotations/480p", seed, binary=True)
        lines += [f"/JPEGImages/480p/{name}/{i:05d}.jpg /Annotations/480p/{name}/{i:05d}.png" for i in range(FRAMES)]
    (root / "ImageSets/480p").mkdir(parents=True)
    (root / "ImageSets/480p/val.txt").write_text("\n".join(lines))
    return root


@pytest.fixture
def davis17(tmp_path):
    root = tmp_path / "2017/trainval"
    draw(root, "pair", root / "JPEGImages/480p", root / "Annotations/480p", seed=5)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("pair\n")
    return root


@pytest.fixture
def youtube(tmp_path):
    """An object appears in frame 1, another in frame 3; the masks of the other frames are empty or missing."""
    annotations = tmp_path / "valid/Annotations"
    draw(tmp_path, "late", tmp_path / "all_frames/valid_all_frames/JPEGImages", annotations, seed=6, frames=5)
    for index, values in enumerate([(0, 0), (7, 0), (0, 0), (0, 3), None]):
        path = annotations / f"late/{index:05d}.png"
        if values is None:
            path.unlink()
        else:
            write_mask(path, np.array([0, *values], np.uint8)[read_mask(path)], davis_palette())
    return tmp_path


@pytest.fixture(scope="session")
def lite():
    return load_network(LITE_WEIGHTS, "cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def evaluate(monkeypatch, capsys, lite):
    """Calls the main function of a script, by default with lite at the size of the frames."""
    def evaluate(script, *args, code=0, network=lite):
        monkeypatch.setattr(evaluation, "load_for_propagation", lambda path, device: network)
        monkeypatch.setattr(sys, "argv", [script, "--size", "-1", *map(str, args)])
        try:
            result = importlib.import_module(script).main()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            result = 2
        out, err = capsys.readouterr()
        assert result == code, out + err
        return out, err
    return evaluate


@pytest.fixture
def evaluate16(evaluate, davis16):
    def evaluate16(output, *args, davis=davis16, **options):
        return evaluate("eval_davis_2016", "--davis", davis, "--model", "lite", "--output", output, *args, **options)
    return evaluate16


@pytest.fixture(scope="module")
def finished16(davis16, lite, tmp_path_factory):
    """The output of an undisturbed run with lite."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "load_for_propagation", lambda path, device: lite)
        patch.setattr(sys, "argv", ["", "--size", "-1", "--davis", str(davis16), "--model", "lite", "--output",
                                    str(output)])
        assert importlib.import_module("eval_davis_2016").main() == 0
    return output


def masks_in(folder):
    """The bytes of all masks below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def modified(path):
    return path.stat().st_mtime_ns


def expected_masks(frames, masks, network, values):
    """Label maps straight from the core; ``masks``: input mask by frame index."""
    defaults = INFERENCE_DEFAULTS[network.variant]
    core = InferenceCore(network, defaults.top_k, defaults.kernel_sigma, defaults.mem_every)
    for index, path in enumerate(frames):
        frame = read_frame(path)
        mask = torch.from_numpy(masks[index]) if index in masks else None
        probabilities = core.step(preprocess_frame(frame, core.device, frame.shape[:2]), mask)
        labels = [values[label] for label in core.labels]
        yield path.stem, to_label_map(probabilities, labels, frame.shape[:2]).cpu().numpy()


def test_davis_2016(evaluate16, davis16, lite, tmp_path):
    printed, _ = evaluate16(tmp_path, "--no_amp")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".settings", *VIDEOS, "scores.csv"]
    for line in ("network: lite (", "\nTotal processing time: ", "\nTotal processed frames: 12\n", "\nFPS: ",
                 "\noverall "):
        assert line in printed
    for name in VIDEOS:
        frames = sorted((davis16 / "JPEGImages/480p" / name).iterdir())
        first = {0: (read_mask(davis16 / "Annotations/480p" / name / "00000.png") > 0) * 1}
        for stem, expected in expected_masks(frames, first, lite, {1: 255}):
            written = Image.open(tmp_path / name / f"{stem}.png")
            assert written.mode == "L"
            assert (np.asarray(written) != expected).mean() < 1e-3
    scores = [line.split(",") for line in (tmp_path / "scores.csv").read_text().splitlines()]
    assert scores[0] == ["sequence", "object", "J&F", "J", "F", "network", "weights"]
    assert [row[:2] for row in scores[1:]] == [[name, "255"] for name in VIDEOS]
    assert all(row[5] == "lite" and row[6].startswith("crc32:") and len(row[6]) == 14 for row in scores[1:])


def test_a_list_cannot_name_paths(davis17):
    (davis17 / "ImageSets/2017/val.txt").write_text("../JPEGImages/480p/pair\n")
    with pytest.raises(InputError, match=r"names '\.\./JPEGImages/480p/pair', which is not the name of a video"):
        davis_2017(davis17.parent, "val")


def test_the_list_of_the_2017_folder_comes_first(evaluate16, davis16, tmp_path):
    (tmp_path / "2016").symlink_to(davis16)
    listed = tmp_path / "2017/trainval/ImageSets/2016/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("cow\n")
    evaluate16(tmp_path / "out", "--no_score", davis=tmp_path / "2016")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".settings", "cow"]


def test_finished_videos_are_skipped_or_overwritten(evaluate16, finished16, tmp_path):
    out = shutil.copytree(finished16, tmp_path / "out")
    time_of_cow = modified(out / "cow/00000.png")
    printed, _ = evaluate16(out)
    assert "3 of 3 videos were finished already" in printed
    assert "Total processed frames: 0\n" in printed
    assert "FPS" not in printed
    shutil.rmtree(out / "bear")
    printed, _ = evaluate16(out)
    assert "2 of 3 videos were finished already" in printed
    assert modified(out / "cow/00000.png") == time_of_cow
    _, err = evaluate16(out, "--no_top", code=2)
    assert "bear: was made with other settings (top_k was 16, is None)" in err
    evaluate16(out, "--overwrite", "--no_score")
    assert modified(out / "cow/00000.png") > time_of_cow
    assert masks_in(out) == masks_in(finished16)


def test_a_finished_video_without_one_of_its_masks_is_redone(evaluate16, finished16, tmp_path):
    out = shutil.copytree(finished16, tmp_path / "out")
    (out / "bear/00001.png").unlink()
    (out / "cow/00000.png").unlink()
    printed, _ = evaluate16(out)
    assert "1 of 3 videos were finished already" in printed
    assert masks_in(out) == masks_in(finished16)


def test_a_video_that_another_run_writes_is_waited_for(evaluate16, finished16, monkeypatch, tmp_path):
    """The other runs are killed while they write cow, and finish bear."""
    def other_runs():
        with lock(tmp_path / "bear"):
            with lock(tmp_path / "cow"):
                yield
                yield
            yield
            shutil.copytree(finished16 / "bear", tmp_path / "bear")
        while True:
            yield

    others = other_runs()
    next(others)
    monkeypatch.setattr(evaluation.time, "sleep", lambda seconds: next(others))
    printed, err = evaluate16(tmp_path)
    assert err.count("bear: another run is writing it") == err.count("cow: another run is writing it") == 1
    assert "Total processed frames: 8\n" in printed
    assert masks_in(tmp_path) == masks_in(finished16)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_is_finished_by_the_next(evaluate, davis16, tmp_path, number):
    arguments = ("--davis", davis16, "--model", "lite", "--output", tmp_path / "out", "--no_score")
    process = subprocess.Popen(command("eval_davis_2016.py", *arguments, "--size", 480), cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.time() + 120
    while not any(tmp_path.glob(f"out/.cow{TEMPORARY}/*")) and process.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (tmp_path / "out/bear").is_dir()
    assert not (tmp_path / "out/dog").exists()
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
        assert "Traceback" not in err
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".settings", "bear"]
    before = modified(tmp_path / "out/bear")
    printed, _ = evaluate("eval_davis_2016", *arguments, "--size", 480)
    assert "1 of 3 videos were finished already" in printed
    assert modified(tmp_path / "out/bear") == before
    assert len(masks_in(tmp_path / "out")) == 3 * FRAMES
    assert not list((tmp_path / "out").glob(".[!s]*"))


@pytest.mark.slow
def test_processes_of_torchrun_divide_the_videos(davis16, finished16, tmp_path):
    arguments = ["--davis", str(davis16), "--model", "lite", "--size", "-1", "--output", str(tmp_path)]
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                          str(ROOT / "eval_davis_2016.py"), *arguments], cwd=tmp_path, capture_output=True, text=True,
                         timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert run.returncode == 0, run.stderr
    for line in ("Total processed frames: 12\n", "FPS per process: ", "FPS of the 2 processes together: ", "overall"):
        assert run.stdout.count(line) == 1
    ours, theirs = masks_in(tmp_path), masks_in(finished16)
    assert ours.keys() == theirs.keys()
    for name in ours:         # another number of threads may round differently
        assert (read_mask(tmp_path / name) != read_mask(finished16 / name)).mean() < 1e-3


@pytest.mark.slow
def test_an_early_error_of_one_process_ends_all(davis16, tmp_path):
    """Without torchrun, which would stop the others."""
    port = free_port()
    processes = [subprocess.Popen(command("eval_davis_2016.py", "--davis", davis, "--model", "lite", "--output",
                                          tmp_path / "out"), cwd=tmp_path, text=True, stderr=subprocess.PIPE,
                                  env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": str(port),
                                       "MASTER_ADDR": "localhost"})
                 for rank, davis in enumerate((davis16, tmp_path / "nowhere"))]
    errors = [process.communicate(timeout=120)[1].strip().splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "another process of this run has failed" in errors[0]
    assert "nowhere: not the DAVIS 2016 folder" in errors[1]


def test_lite_in_place_of_missing_weights_is_announced_twice(evaluate, davis16, finished16, monkeypatch, tmp_path):
    weights, out = shutil.copy(LITE_WEIGHTS, tmp_path / "weights.pth"), shutil.copytree(finished16, tmp_path / "out")
    for published, model, announced in ((None, (), 1), (weights, (), 0), (None, ("--model", "lite"), 0)):
        monkeypatch.setattr(evaluation, "published_weights", lambda path=published: path)
        monkeypatch.setattr(evaluation, "default_weights", lambda path=published: path or LITE_WEIGHTS)
        printed, err = evaluate("eval_davis_2016", "--davis", davis16, "--output", out, *model)
        assert err.count("saves/propagation_model.pth does not exist") == announced
        assert printed.count("saves/propagation_model.pth does not exist") == announced
        assert printed.splitlines()[-1].startswith("warning: saves" if announced else "overall ")


@pytest.mark.slow
def test_davis_2017_renumbers_objects_and_keeps_the_palette(evaluate, davis17, network, tmp_path):
    first = davis17 / "Annotations/480p/pair/00000.png"
    original = read_mask(first)
    write_mask(first, np.array([0, 4, 9], np.uint8)[original], davis_palette())
    for index in (1, 2):
        (davis17 / f"Annotations/480p/pair/{index:05d}.png").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scores.csv").write_text("of an earlier run")
    printed, err = evaluate("eval_davis", "--davis", davis17.parent, "--model", LITE_WEIGHTS, "--output",
                            tmp_path / "out", network=network)
    assert printed.startswith("network: published (")
    assert "No scores: no video has usable ground truth for more than two frames." in printed
    assert "scores.csv has the scores of an earlier run" in err
    assert (tmp_path / "out/scores.csv").read_text() == "of an earlier run"
    frames = sorted((davis17 / "JPEGImages/480p/pair").iterdir())
    for stem, expected in expected_masks(frames, {0: original}, network, {1: 1, 2: 2}):
        written = Image.open(tmp_path / f"out/pair/{stem}.png")
        assert written.mode == "P"
        assert bytes(written.getpalette()).ljust(768, b"\0") == davis_palette()
        assert (np.asarray(written) != expected).mean() < 1e-3


def test_youtube_objects_appear_late_and_keep_their_labels(evaluate, youtube):
    arguments = ("eval_youtube", "--yv", youtube, "--model", "lite", "--output", youtube / "out")
    evaluate(*arguments)
    written = {path.stem: np.asarray(Image.open(path)) for path in sorted((youtube / "out/late").iterdir())}
    assert list(written) == ["00001", "00002", "00003", "00004"]
    assert all(mask.shape == (HEIGHT, WIDTH) for mask in written.values())
    assert set(np.unique(written["00001"])) == {0, 7}
    assert not np.isin(3, written["00002"])
    assert set(np.unique(np.concatenate([written["00003"], written["00004"]]))) <= {0, 3, 7}
    for stem, value in (("00001", 7), ("00003", 3)):
        mask = read_mask(youtube / f"valid/Annotations/late/{stem}.png")
        assert ((written[stem] == value) == (mask == value)).mean() > 0.98
    printed, _ = evaluate(*arguments)
    assert "1 of 1 videos were finished already" in printed
    (youtube / "out/late/00002.png").unlink()
    printed, _ = evaluate(*arguments)
    assert "Total processed frames: 4" in printed
    assert list(written) == [path.stem for path in sorted((youtube / "out/late").iterdir())]


def test_masks_of_a_video_without_frames_are_named(youtube, capsys):
    shutil.copytree(youtube / "valid/Annotations/late", youtube / "valid/Annotations/gone")
    videos, _ = youtube_vos(youtube, "valid")
    assert [video.name for video in videos] == ["late"]
    assert "1 video with masks in " in capsys.readouterr().err


@pytest.mark.parametrize(("script", "size"), [("eval_davis", None), ("eval_davis_2016", None), ("eval_youtube", 480)])
def test_sizes_are_the_published_ones(monkeypatch, script, size):
    sizes = {}

    def evaluate(read_videos, args):
        for variant in INFERENCE_DEFAULTS:
            sizes[variant] = PropagationConfig.from_args(args, build(variant)).size

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(sys, "argv", [script, "--output", "out"])
    importlib.import_module(script).main()
    assert sizes == {"published": size, "lite": 480}


def test_a_broken_video_does_not_stop_the_others(evaluate16, davis16, finished16, tmp_path):
    root = shutil.copytree(davis16, tmp_path / "2016")
    frame = root / "JPEGImages/480p/bear/00002.jpg"
    frame.write_bytes(frame.read_bytes()[:500])
    printed, err = evaluate16(tmp_path / "out", davis=root, code=2)
    assert "bear/00002.jpg: cannot be read" in err
    assert "1 of 3 videos failed: bear" in err
    assert printed.splitlines()[-1] == "(2 of 3 videos have scores)"
    finished = masks_in(finished16)
    assert masks_in(tmp_path / "out") == {name: finished[name] for name in finished if not name.startswith("bear")}


def test_other_files_are_not_deleted(evaluate16, tmp_path):
    (tmp_path / "bear").mkdir()
    (tmp_path / "bear/thesis.txt").write_text("years of work")
    _, err = evaluate16(tmp_path, "--overwrite", code=2)
    assert "bear: holds something that is no mask of this clip (thesis.txt)" in err
    assert (tmp_path / "bear/thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "cow").exists()


def test_a_broken_ground_truth_mask_costs_one_score(evaluate16, davis16, finished16, tmp_path):
    root = shutil.copytree(davis16, tmp_path / "2016")
    shutil.copytree(finished16, tmp_path / "out")
    Image.new("L", (9, 9)).save(root / "Annotations/480p/cow/00002.png")
    printed, err = evaluate16(tmp_path / "out", davis=root)
    assert "cow is not scored" in err
    assert "00002.png: 9x9 pixels, but the predicted mask has 96x64" in err
    assert [line.split()[0] for line in printed.splitlines()[-4:]] == ["bear", "dog", "overall", "(2"]


@pytest.mark.parametrize("script", ["eval_davis", "eval_davis_2016", "eval_youtube"])
def test_a_missing_data_set_gets_one_line(evaluate, script, tmp_path):
    flag = "--yv" if script == "eval_youtube" else "--davis"
    _, err = evaluate(script, flag, tmp_path / "nowhere", "--model", "lite", "--output", tmp_path / "out", code=2)
    assert len(err.splitlines()) == 1
    assert "nowhere" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["eval_davis", "eval_davis_2016", "eval_youtube"])
def test_help_explains_every_flag(monkeypatch, capsys, script):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(script).main()
    printed = capsys.readouterr().out
    for flag in ("--model", "--output", "--use_km", "--no_top", "--top_k", "--mem_every", "--device", "--amp",
                 "--tf32", "--num_workers", "--overwrite", "--no_score"):
        assert flag in printed
    assert "saves/propagation_model.pth if it exists, else lite" in " ".join(printed.split())
