"""The parts of annotate.py below the server: frames, the annotation on disk, GrabCut, the worker, export."""
import argparse
import json
import re
import shutil
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from annotation.export import export
from annotation.frames import ClipFrames, jpeg
from annotation.grabcut import BACKGROUND, OBJECT, grabcut
from annotation.jobs import Job, Jobs
from annotation.project import Pass, Project, Result, read_result, write_prediction
from annotation.server import propagate_command
from annotation.worker import Snapshots, _run
from dataset.clip import open_clip
from dataset.image_io import read_mask, write_mask
from dataset.synthetic import draw_clip, write_clip
from dataset.video import Video
from dataset.video_reader import VideoFrames
from inference.arguments import add_arguments
from inference.bidirectional import propagate_clip
from inference.confidence import ObjectConfidence
from inference.passes import frame_ranges
from inference.propagation import PropagationConfig, Timer
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from util.cli import InputError
from util.files import LOCK
from util.palette import davis_palette

HEIGHT, WIDTH, FRAMES = 48, 64, 12


@pytest.fixture(scope="module")
def lite():
    return load_network(LITE_WEIGHTS)


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", frames=FRAMES, height=HEIGHT, width=WIDTH, objects=2, seed=1)
    return tmp_path / "clip"


@pytest.fixture
def open_project(clip, tmp_path):
    """Opens the annotation of the clip, as a new server does."""
    def open_project(masks=None, images=clip / "frames"):
        folder = tmp_path / "annotation"
        folder.mkdir(exist_ok=True)
        frames = ClipFrames(None, images)
        project = Project(folder, frames, masks)
        frames.scan(folder, project.clip_scanned)
        return project
    return open_project


def mask_of(clip, index):
    return read_mask(clip / f"masks/{index:05d}.png").astype(np.uint8)


def write_video(path, frames):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


# ---- frames ----

def test_frames_of_a_video_are_exact_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr("annotation.frames.CACHE_BYTES", 20 * HEIGHT * WIDTH * 3)
    write_video(tmp_path / "clip.mp4", [frame for frame, _ in draw_clip(60, HEIGHT, WIDTH, 2, seed=2)])
    expected = list(VideoFrames(tmp_path / "clip.mp4").read(range(60), workers=0))
    frames = ClipFrames(tmp_path / "clip.mp4", None)
    frames.scan(tmp_path, lambda: None)
    assert len(frames.names) == 60              # at once, as the file says
    assert frames.scanned.wait(30)
    for index in [0, 1, 2, 40, 41, 39, 3, 59, 58, 57, 17, 16, 15, 0, 59]:
        assert (frames.exact(index) == expected[index]).all()
        assert len(frames._cache) <= 20
    assert frames.progress == 1
    assert nearest(frames.preview(30), expected) == 30


def nearest(preview, expected):
    """The index of the frame that is most similar to a preview."""
    image = cv2.imdecode(np.frombuffer(preview, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
    return np.argmin([np.abs(image - frame).mean() for frame in expected])


def test_a_video_can_be_used_while_it_is_scanned(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", [frame for frame, _ in draw_clip(40, HEIGHT, WIDTH, 2, seed=2)])
    expected = list(VideoFrames(tmp_path / "clip.mp4").read(range(40), workers=0))
    go_on, scan = threading.Event(), VideoFrames.scan

    def fail(path):
        raise av.error.InvalidDataError(1, "invalid")

    def slow_scan(self, on_frame):
        scan(self, lambda index, frame: (on_frame(index, frame), index == 19 and go_on.wait(30)))

    monkeypatch.setattr(VideoFrames, "scan", slow_scan)
    frames = ClipFrames(tmp_path / "clip.mp4", None)
    frames.scan(tmp_path, lambda: None)
    while not frames.is_exact(19):
        time.sleep(0.01)
    assert (frames.exact(18) == expected[18]).all()
    assert not frames.is_exact(30)
    assert nearest(frames.preview(30), expected) == 24          # the last keyframe, though it was not scanned
    assert nearest(frames.preview(30, sought=True), expected) == 30
    monkeypatch.setattr("av.open", fail)
    assert nearest(frames.preview(30), expected) == 30          # where PyAV cannot help
    assert 0.4 < frames.progress < 0.6
    go_on.set()
    assert frames.scanned.wait(30)
    assert (frames.exact(30) == expected[30]).all()


def test_large_frames_have_small_previews(tmp_path):
    write_video(tmp_path / "clip.mp4", [np.full((540, 960, 3), 30 * index, np.uint8) for index in range(4)])
    frames = ClipFrames(tmp_path / "clip.mp4", None)
    frames.scan(tmp_path, lambda: None)
    assert frames.scanned.wait(30)
    assert cv2.imdecode(np.frombuffer(frames.preview(2), np.uint8), 1).shape == (270, 480, 3)
    assert cv2.imdecode(np.frombuffer(jpeg(frames.exact(2)), np.uint8), 1).shape == (540, 960, 3)


def test_frames_of_another_size_are_named(clip, tmp_path):
    Image.new("RGB", (80, 60)).save(clip / "frames/00003.jpg")
    frames = ClipFrames(None, clip / "frames")
    assert frames.exact(4).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(InputError, match=r"00003\.jpg: 80x60 pixels, the first frame 64x48"):
        frames.exact(3)
    assert frames.exact(4).shape == (HEIGHT, WIDTH, 3)


# ---- the annotation on disk ----

def test_what_was_drawn_is_there_after_a_restart(open_project, clip, tmp_path):
    project = open_project()
    assert not project.labels(0).any()
    project.save_mask(3, mask_of(clip, 3))
    project.rename({1: "dog", 2: "ball", 9: "unused"})
    project.save_mask(5, mask_of(clip, 5))
    project.save_mask(5, np.zeros((HEIGHT, WIDTH), np.uint8))           # removes it
    again = open_project()
    assert list(again.masks) == [3]
    assert again.names == {1: "dog", 2: "ball", 9: "unused"}
    assert (again.labels(3) == mask_of(clip, 3)).all()
    assert [path.name for path in (tmp_path / "annotation/masks").iterdir()] == ["00003.png"]
    again.rename({1: "dog", 2: "ball"})
    with pytest.raises(InputError, match="ball is in the mask of frame 3; erase it there first"):
        again.rename({1: "dog"})


def test_folders_of_others_are_refused(open_project, clip, tmp_path):
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation/holiday.jpg").touch()
    with pytest.raises(InputError, match=r"holds other files \(holiday.jpg\); choose another --output"):
        open_project()
    (tmp_path / "annotation/holiday.jpg").unlink()
    open_project()
    write_clip(tmp_path / "larger", frames=2, height=HEIGHT, width=80, objects=1, seed=1)
    write_clip(tmp_path / "other", frames=FRAMES, height=HEIGHT, width=WIDTH, objects=2, seed=7)
    for name in ("larger", "other"):            # the names of the frames are the same
        with pytest.raises(InputError, match=r"annotation: belongs to another clip \(frames\), or its frames"):
            open_project(images=tmp_path / name / "frames")


@pytest.mark.parametrize("content", [
    "", "{", "[" * 10 ** 5, "[]", '{"clip": "x", "digest": 5, "objects": {"1": null}}',
    '{"digest": "x", "objects": {}}', '{"clip": "x", "digest": "x", "objects": {"999": "dog"}}',
    '{"clip": "x", "digest": "x", "objects": {"True": "x"}}'], ids=lambda text: text[:60])
def test_damaged_names_are_replaced(open_project, clip, tmp_path, capsys, content):
    open_project(masks=clip / "masks/00000.png").rename({1: "dog", 2: "ball"})
    file = tmp_path / "annotation/objects.json"
    file.write_text(content)
    assert open_project().names == {1: "object 1", 2: "object 2"}
    assert "objects.json: damaged, so the objects get new names" in capsys.readouterr().err
    assert (tmp_path / "annotation/objects.json.damaged").read_text() == content
    assert list(open_project().masks) == [0]


def test_names_are_printable(open_project):
    project = open_project()
    project.rename({1: " a\nb\ud800\u202e<b> ", 2: " ", 3: "x" * 100})
    assert project.names == {1: "ab<b>", 2: "object 2", 3: "x" * 60}
    assert open_project().names == project.names


def test_names_that_cannot_be_saved_are_not_used(open_project, monkeypatch):
    project = open_project()

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("annotation.project.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        project.rename({1: "dog"})
    assert project.names == {}


def test_earlier_masks_are_taken_over_but_replace_nothing(open_project, clip, capsys):
    project = open_project(masks=clip / "masks/00004.png")
    assert (project.labels(4) == mask_of(clip, 4)).all()
    mine = np.zeros((HEIGHT, WIDTH), np.uint8)
    mine[:10, :10] = 1
    project.save_mask(4, mine)
    assert (open_project(masks=clip / "masks").labels(4) == mine).all()
    assert "00004.png" in capsys.readouterr().err           # the only one that differs
    assert len(open_project(masks=clip / "masks").masks) == FRAMES
    assert "00003.png" not in capsys.readouterr().err


def test_a_mask_that_was_removed_is_not_imported_again(open_project, clip, capsys):
    project = open_project(masks=clip / "masks")
    project.save_mask(4, np.zeros((HEIGHT, WIDTH), np.uint8))
    capsys.readouterr()
    project = open_project(masks=clip / "masks")
    assert sorted(project.masks) == [index for index in range(FRAMES) if index != 4]
    err = capsys.readouterr().err
    assert re.fullmatch(r"warning: .*00004\.png: not used, since this mask was removed in .*annotation; to use it "
                        r"again, copy it to .*annotation/masks/00004\.png\n", err)
    write_mask(clip / "masks/00004.png", mask_of(clip, 3), davis_palette())
    assert (open_project(masks=clip / "masks").labels(4) == mask_of(clip, 3)).all()      # another mask


def test_only_masks_that_were_used_count_as_removed(open_project, clip, capsys):
    write_mask(clip / "masks/00003.png", np.zeros((HEIGHT, WIDTH), np.uint8), davis_palette())
    project = open_project()
    project.save_mask(4, np.ones((HEIGHT, WIDTH), np.uint8))
    project = open_project(masks=clip / "masks")            # has another mask of frame 4, which is not used
    project.save_mask(4, np.zeros((HEIGHT, WIDTH), np.uint8))
    capsys.readouterr()
    assert (open_project(masks=clip / "masks").labels(4) == mask_of(clip, 4)).all()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("imported", [None, 5, "text", [], ["ab"]])
def test_names_survive_other_damage_of_their_file(open_project, imported, capsys):
    project = open_project()
    project.rename({1: "dog"})
    path = project.folder / "objects.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "imported": imported}))
    assert open_project().names == {1: "dog"}
    assert capsys.readouterr().err == ""


def test_more_than_64_objects_are_refused(open_project):
    project = open_project()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[0, :65 - 1] = range(1, 65)
    project.save_mask(0, mask)
    mask[1, 0] = 65
    with pytest.raises(InputError, match="more than 64 objects"):
        project.save_mask(0, mask)
    assert (project.labels(0)[1] == 0).all()


def add_results(project, direction, indices, value):
    """Note predictions that are ``value`` everywhere, as the worker does."""
    for index in indices:
        result = Result(project.dependency(direction, index), [value], [ObjectConfidence(value, 9, 0.9, 0.8)])
        write_prediction(project.prediction_file(direction, index), np.full((HEIGHT, WIDTH), value, np.uint8),
                         davis_palette(), result)
        project.add_result(direction, index, result)


def test_only_what_depends_on_a_changed_mask_is_stale(open_project, clip):
    project = open_project()
    project.save_mask(2, mask_of(clip, 2))
    project.save_mask(8, mask_of(clip, 8))
    add_results(project, "forward", range(2, FRAMES), 1)
    assert [project.state(index) for index in range(FRAMES)] == ["none"] * 2 + ["current"] * 10
    version = project.version
    project.save_mask(5, mask_of(clip, 5))
    assert [project.state(index) for index in range(FRAMES)] == ["none"] * 2 + ["current"] * 3 + ["stale"] * 7
    assert project.first_missing("forward", range(2, FRAMES)) == 5
    assert {record["frame"] for record in project.records(version)} >= set(range(5, FRAMES))
    project.save_mask(5, np.zeros((HEIGHT, WIDTH), np.uint8))            # undone, so everything is current again
    assert project.first_missing("forward", range(2, FRAMES)) is None
    project.set_settings("other settings")
    assert project.first_missing("forward", range(2, FRAMES)) == 2
    project.set_settings("")
    add_results(project, "backward", range(8, -1, -1), 2)
    project.save_mask(8, mask_of(clip, 7))
    assert [project.state(index) for index in (0, 7, 9)] == ["stale"] * 3
    assert project.first_missing("backward", range(8, -1, -1)) == 8
    assert [open_project().state(index) for index in (2, 9)] == ["stale", "stale"]     # of frame 2: the backward pass
    assert open_project().first_missing("forward", range(2, FRAMES)) == 8


def test_results_that_no_pass_covers_any_more_do_not_count(open_project, clip):
    project = open_project(masks=clip / "masks/00000.png")
    add_results(project, "forward", range(FRAMES), 1)
    project.save_mask(8, mask_of(clip, 8))
    add_results(project, "forward", range(8, FRAMES), 1)
    add_results(project, "backward", range(8, -1, -1), 2)
    assert (project.export_labels(7) == 2).all()
    project.save_mask(8, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert [project.state(index) for index in (0, 7, 8, 9)] == ["current"] * 2 + ["stale"] * 2
    assert (project.export_labels(7) == 1).all()
    assert project.first_missing("forward", range(FRAMES)) == 8
    project.save_mask(8, mask_of(clip, 8))                  # undone
    assert project.first_missing("backward", range(8, -1, -1)) is None


@pytest.mark.parametrize("damage", [
    "cut", '["x",[1],[1,2]]', '["x",[1],[[1,5,NaN,0.5]]]', '["x",[1],[[1,5,1e400,0.5]]]', "{", "[" * 10 ** 5],
    ids=lambda text: text[:60])
def test_damaged_predictions_are_computed_again(open_project, clip, damage):
    project = open_project(masks=clip / "masks/00000.png")
    add_results(project, "forward", range(FRAMES), 1)
    path = project.prediction_file("forward", 5)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        info = PngInfo()
        info.add_text("mask-propagation", damage)
        Image.new("P", (WIDTH, HEIGHT)).save(path, pnginfo=info)
    assert open_project().first_missing("forward", range(FRAMES)) == 5
    path.write_bytes(b"")                                   # while it is open
    with pytest.raises(InputError, match=r"00005\.png: cannot be read"):
        project.labels(5)
    assert project.first_missing("forward", range(FRAMES)) == 5


def test_masks_of_frames_that_a_video_does_not_have_are_put_aside(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", [frame for frame, _ in draw_clip(5, HEIGHT, WIDTH, 1, seed=2)])
    frames = ClipFrames(tmp_path / "clip.mp4", None)
    frames.reader.expected = 20
    (tmp_path / "annotation").mkdir()
    project = Project(tmp_path / "annotation", frames, None)
    for index in (3, 17):
        project.save_mask(index, np.ones((HEIGHT, WIDTH), np.uint8))
    frames.scan(tmp_path, project.clip_scanned)
    frames._scan.join()
    assert list(project.masks) == [3]
    assert "only 5 of 20 frames can be decoded" in frames.problem
    assert (tmp_path / "annotation/unused_masks/00017.png").exists()
    assert project.labels(3).all()


def test_an_annotation_of_a_video_that_states_no_length_is_resumed(tmp_path):
    write_video(tmp_path / "clip.mp4", [frame for frame, _ in draw_clip(9, HEIGHT, WIDTH, 1, seed=2)])
    (tmp_path / "annotation").mkdir()
    for start in ("first", "second"):
        frames = ClipFrames(tmp_path / "clip.mp4", None)
        frames.reader.expected = frames.claimed = 0                 # as of a recording that was cut off
        project = Project(tmp_path / "annotation", frames, None)
        if start == "second":
            assert len(frames.names) == 13                           # until the scan ends
            assert list(project.masks) == [7]
        else:
            project.save_mask(7, np.ones((HEIGHT, WIDTH), np.uint8))
            for index in (8, 12):
                path = project.prediction_file("forward", index)
                path.parent.mkdir(parents=True, exist_ok=True)
                result = Result(project.dependency("forward", index), [1], [])
                write_prediction(path, np.ones((HEIGHT, WIDTH), np.uint8), project.palette, result)
    frames.scan(tmp_path / "annotation", project.clip_scanned)
    assert frames.settled.wait(30)
    assert [record["frame"] for record in project.records(0)] == [7, 8]
    assert project.state(8) == "current"


def test_a_lock_in_the_folder_is_not_foreign(open_project, tmp_path):
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation" / LOCK).touch()
    assert open_project().masks == {}


def test_a_propagation_that_waited_needs_a_mask(open_project):
    with pytest.raises(InputError, match="there is no mask to propagate yet"):
        Jobs(open_project(), None)._propagate(Job("propagate", "forward"), None)


def test_the_command_repeats_the_flags_that_change_the_masks(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser, size=480, max_memory_frames=20)
    for flags, expected in (("--no_amp --device cpu", "--no_amp --device cpu"), ("--amp --no_km", "--no_km --amp"),
                            ("--size 64 --top_k 9", "--size 64 --top_k 9"), ("--mem_every 2", "--mem_every 2"),
                            ("", "--model")):
        args = parser.parse_args(flags.split())
        args.video, args.images = tmp_path / "clip.mp4", None
        assert expected in propagate_command(args, tmp_path)


def test_shown_labels_are_the_mask_with_other_predicted_objects(open_project):
    project = open_project()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:10] = 1
    project.save_mask(4, mask)
    add_results(project, "forward", [4], 2)
    assert (project.labels(4) == np.where(mask == 1, 1, 2)).all()
    assert (project.export_labels(4) == 2).all()            # as propagate.py writes it
    project.save_mask(4, mask[::-1])
    assert (project.export_labels(4)[-10:] == 1).all()      # it has not been propagated


# ---- GrabCut ----

@pytest.fixture(scope="module")
def scene():
    """A disc of another texture, and its mask."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:200, :300]
    disc = (y - 90) ** 2 + (x - 160) ** 2 < 50 ** 2
    frame = np.where(disc[..., None], [200, 120, 60], [60, 110, 160]) + random.normal(0, 25, (200, 300, 3))
    return frame.clip(0, 255).astype(np.uint8), disc


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("scale", [1, 5])
def test_a_box_becomes_a_mask(scene, scale):
    frame, disc = (np.repeat(np.repeat(array, scale, 0), scale, 1) for array in scene)
    box = tuple(scale * corner for corner in (100, 30, 220, 150))
    found = grabcut(frame, np.zeros(disc.shape, np.uint8), box)
    assert iou(found > 0, disc) > 0.95
    assert set(np.unique(found)) == {0, 1}


def test_scribbles_become_a_mask_and_are_kept(scene):
    frame, disc = scene
    hints = np.zeros(disc.shape, np.uint8)
    hints[85:95, 130:190] = OBJECT
    hints[10:14], hints[185:190], hints[:, :6] = BACKGROUND, BACKGROUND, BACKGROUND
    assert iou(grabcut(frame, hints, None) > 0, disc) > 0.9
    hints[60:70, 150:170] = BACKGROUND                      # in the disc
    found = grabcut(frame, hints, (100, 30, 220, 150))
    assert (found[hints == BACKGROUND] == 0).all()
    assert (found[hints == OBJECT] == 1).all()


@pytest.mark.parametrize("box", [(5, 5, 6, 6), (400, 300, 500, 400), (-9, -9, -1, -1), (20, 20, 10, 10)])
def test_boxes_without_pixels_are_refused(scene, box):
    with pytest.raises(InputError, match="too small"):
        grabcut(scene[0], np.zeros(scene[1].shape, np.uint8), box)


def test_no_box_and_no_stroke_is_refused(scene):
    with pytest.raises(InputError, match="draw a box"):
        grabcut(scene[0], np.zeros(scene[1].shape, np.uint8), None)


@pytest.mark.parametrize("value", [0, 128])
def test_flat_frames_and_whole_boxes_do_not_fail(value):
    frame = np.full((40, 60, 3), value, np.uint8)
    assert grabcut(frame, np.zeros((40, 60), np.uint8), (-10, -10, 100, 100)).shape == (40, 60)


# ---- the worker ----

class Pipe(list):
    """Collects what the worker sends; after ``stop_after`` frames, the user stops it."""

    def __init__(self, stop_after=1000):
        self.stop_after = stop_after

    def send(self, message):
        self.append(message)

    def is_set(self):
        return len(self) > self.stop_after


def run_pass(project, network, config, snapshots, direction="forward", pipe=None):
    """Propagate what is missing, as jobs.py and the worker do; returns the frames that were computed."""
    pipe = Pipe() if pipe is None else pipe
    video = Video("x", project.frames.reader, project.masks)
    indices = frame_ranges(video, direction)[direction == "backward"]
    start = project.first_missing(direction, indices)
    job = Pass(direction, video, indices, start, [project.dependency(direction, index) for index in indices],
               project.prediction_file(direction, 0).parent, project.palette)
    status = _run(job, network, config, snapshots, pipe, pipe)
    for _, index, result in pipe:
        if result:
            project.add_result(direction, index, result)
    return status, [index for _, index, _ in pipe]


@pytest.mark.parametrize("limit", [None, 3])
def test_a_corrected_pass_equals_one_from_scratch(open_project, clip, lite, tmp_path, limit):
    config = PropagationConfig(top_k=16, kernel_sigma=7, mem_every=2, max_memory_frames=limit)
    snapshots = Snapshots()
    snapshots.stride = 4
    project = open_project(masks=clip / "masks/00000.png")
    assert run_pass(project, lite, config, snapshots) == ("done", list(range(FRAMES)))
    project.save_mask(6, mask_of(clip, 6))
    assert run_pass(project, lite, config, snapshots) == ("done", list(range(5, FRAMES)))      # copied after frame 4
    assert run_pass(project, lite, config, snapshots, "backward")[0] == "done"
    video = open_clip(None, clip / "frames", tmp_path / "annotation/masks")
    (tmp_path / "expected").mkdir()
    propagate_clip(lite, video, config, "both", tmp_path / "expected", davis_palette(), Timer(), lambda: None)
    for index in range(FRAMES):
        assert (project.export_labels(index) == read_mask(tmp_path / f"expected/{index:05d}.png")).all()


def test_a_stopped_pass_is_resumed(open_project, clip, lite):
    config, snapshots = PropagationConfig(top_k=16), Snapshots()
    project = open_project(masks=clip / "masks/00000.png")
    assert run_pass(project, lite, config, snapshots, pipe=Pipe(stop_after=5)) == ("stopped", list(range(6)))
    assert run_pass(project, lite, config, snapshots) == ("done", list(range(6, FRAMES)))
    resumed = [project.export_labels(index) for index in range(FRAMES)]
    again = open_project()                                  # a new server: nothing is missing
    assert again.first_missing("forward", range(FRAMES)) is None
    shutil.rmtree(again.folder / "predictions")
    again = open_project()
    run_pass(again, lite, config, Snapshots())
    assert all((again.export_labels(index) == resumed[index]).all() for index in range(FRAMES))


def test_copies_of_the_core_have_limited_memory(monkeypatch):
    class Core:
        nbytes = 10

        def copy(self):
            return self

    monkeypatch.setattr("annotation.worker.SNAPSHOT_BYTES", 100)
    snapshots = Snapshots()
    for position in range(5000):
        if position % snapshots.stride == 0:
            snapshots.add(position, "a", Core())
    assert len(snapshots._cores) <= 10
    assert snapshots.before(4500, ["a"] * 5000)[0] > 3000
    assert snapshots.before(100, ["a"] * 200)[0] < 100              # a shorter pass keeps the copies beyond its end
    assert snapshots.before(4500, ["a"] * 5000)[0] > 3000
    assert snapshots.before(4500, ["b"] * 5000) is None


# ---- export ----

def test_an_export_of_an_overlay_stops(open_project, clip):
    project = open_project(masks=clip / "masks/00000.png")
    calls = []

    def stop():
        calls.append(None)
        if len(calls) == FRAMES + 3:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        export(project, ["overlay"], stop)
    assert not list((project.folder / "export").rglob("*.*"))
    assert not list(project.folder.glob(".export*"))


def test_every_kind_is_exported(open_project, clip):
    project = open_project(masks=clip / "masks")
    folder = export(project, ["masks", "binary", "cutouts", "overlay"], lambda: None)
    for index in range(FRAMES):
        mask = mask_of(clip, index)
        assert (read_mask(folder / f"masks/{index:05d}.png") == mask).all()
        with Image.open(folder / f"masks/{index:05d}.png") as image:
            assert image.mode == "P"
        for label in (1, 2):
            binary = np.asarray(Image.open(folder / f"binary/object_{label:03d}/{index:05d}.png"))
            assert ((binary == 255) == (mask == label)).all()
            cutout = np.asarray(Image.open(folder / f"cutouts/object_{label:03d}/{index:05d}.png"))
            assert (cutout[..., 3] == binary).all()
            assert (cutout[..., :3] == project.frames.exact(index)).all()
    assert len(VideoFrames(folder / "overlay/overlay.mp4").names) == FRAMES
    (folder / "masks/mine.txt").touch()
    project.save_mask(3, np.zeros((HEIGHT, WIDTH), np.uint8))
    export(project, ["masks"], lambda: None)
    names = {path.name for path in (folder / "masks").iterdir()}
    assert "mine.txt" in names          # files of others stay
    assert "00003.png" not in names     # files of the export before do not
    assert not list(project.folder.glob(".export*"))


def test_results_are_in_the_predicted_masks(tmp_path):
    result = Result("abc", [1, 7], [ObjectConfidence(1, 5, 0.5, 0.25), ObjectConfidence(7, 0, 0.0, 0.0)])
    write_prediction(tmp_path / "a.png", np.eye(8, dtype=np.uint8), davis_palette(), result)
    assert read_result(tmp_path / "a.png") == result
    assert (read_mask(tmp_path / "a.png") == np.eye(8)).all()
    Image.new("P", (8, 8)).save(tmp_path / "b.png")
    Path(tmp_path / "c.png").write_bytes(b"no image")
    assert read_result(tmp_path / "b.png") is read_result(tmp_path / "c.png") is None
