"""Users' clips: the frames of masks, directions, video files, overlays."""
import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from commands import ROOT
from PIL import Image

from dataset.clip import find_masks, open_clip
from dataset.image_io import write_mask
from dataset.synthetic import draw_clip, write_clip
from dataset.video import Video, image_files, natural_order
from dataset.video_reader import ImageFrames, VideoFrames
from inference import propagation
from inference.overlay import draw_overlay, write_overlay
from inference.passes import frame_ranges, merge
from inference.propagation import PropagationConfig, Timer, propagate
from inference.results import check_output_is_not_input
from inference_core import InferenceCore
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from util.cli import InputError
from util.palette import davis_palette
from util.parallel import map_in_threads


def frames_called(*names):
    return ImageFrames([Path(f"{name}.jpg") for name in names])


def test_frames_are_in_natural_order(tmp_path):
    names = ["f10.jpg", "f9.jpg", "f1.jpg", "F2.jpg", "a.jpg", "2.jpg", "10.jpg", "\u0663.jpg"]      # an Arabic 3
    assert sorted(names, key=natural_order) == [
        "2.jpg", "\u0663.jpg", "10.jpg", "a.jpg", "f1.jpg", "F2.jpg", "f9.jpg", "f10.jpg"]
    touch(tmp_path / "frames", "10.jpg", "2.jpg", "1.jpg")
    assert [path.name for path in image_files(tmp_path / "frames")] == ["1.jpg", "2.jpg", "10.jpg"]


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_masks_belong_to_the_frames_they_are_named_after(tmp_path, capsys):
    frames = ["00000", "00001", "00002"]
    folder = touch(tmp_path / "a", "00002.png", "00000.png")
    assert find_masks(frames, folder, numbered=False) == {0: folder / "00000.png", 2: folder / "00002.png"}
    assert find_masks(frames, folder / "00002.png", numbered=False) == {2: folder / "00002.png"}
    assert capsys.readouterr().err == ""
    folder = touch(tmp_path / "b", "first mask.png")
    assert find_masks(frames, folder / "first mask.png", numbered=False) == {0: folder / "first mask.png"}
    assert "not named after a frame, used for the first one (00000)" in capsys.readouterr().err
    folder = touch(tmp_path / "c", "2.png")
    assert find_masks(frames, folder, numbered=True) == {2: folder / "2.png"}


@pytest.mark.parametrize(("name", "single", "numbered"), [
    ("00007.png", False, False), ("other.png", False, False), ("00007.png", True, False), ("7.png", True, True)])
def test_masks_named_after_no_frame_are_refused(tmp_path, name, single, numbered):
    folder = touch(tmp_path / "masks", name)
    with pytest.raises(InputError, match=rf"{name}: no frame has this name \(frames are named 00000 to 00002, 3 in"):
        find_masks(["00000", "00001", "00002"], folder / name if single else folder, numbered)


def test_two_masks_for_a_frame_are_refused(tmp_path):
    with pytest.raises(InputError, match="a second mask"):
        find_masks(["00000"], touch(tmp_path / "m", "0.png", "00.png"), numbered=True)


def test_each_direction_has_its_frames():
    video = Video("x", frames_called(*"abcdefgh"), {2: Path("c"), 5: Path("f")})
    assert frame_ranges(video, "forward") == (range(2, 8), range(0))
    assert frame_ranges(video, "backward") == (range(0), range(5, -1, -1))
    assert frame_ranges(video, "both") == (range(2, 8), range(5, -1, -1))
    assert frame_ranges(Video("x", frames_called("a", "b"), {0: Path("a")}), "both") == (range(0, 2), range(0))


def test_merging_adds_objects_of_the_other_pass_only():
    mask, other = np.array([[1, 0, 0, 2]], np.uint8), np.array([[3, 3, 1, 3]], np.uint8)
    assert merge(mask, other, known=[1, 2]).tolist() == [[1, 3, 0, 2]]


def write_video(path, frames, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


@pytest.mark.parametrize("reliable_seeking", [True, False])
def test_a_video_is_the_same_backward(tmp_path, reliable_seeking):
    drawn = [frame for frame, _ in draw_clip(50, 48, 64, 2, seed=3)]
    write_video(tmp_path / "clip.mp4", drawn)
    video = VideoFrames(tmp_path / "clip.mp4")
    if not reliable_seeking:
        video._marks = [(time, 0) for time, _ in video._marks]
    assert (len(video.names), video.names[0], video.names[-1], video.fps) == (50, "00000", "00049", 25)
    forward = list(video.read(range(50), 1))
    assert np.abs(forward[20].astype(int) - drawn[20]).mean() < 20          # RGB, in order, up to compression
    assert np.abs(forward[20].astype(int) - drawn[20][..., ::-1]).mean() > 20
    for start in (49, 32, 31, 3):
        backward = list(video.read(range(start, -1, -1), 1))
        assert all(np.array_equal(a, b) for a, b in zip(reversed(backward), forward[:start + 1], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(video.read(range(37, 50), 1), forward[37:], strict=True))


def write_variable_rate(path, levels, seed=0):
    """A video of grey frames whose distances in time vary."""
    times = np.random.default_rng(seed).choice([17, 33, 50, 200], len(levels)).cumsum().tolist()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.codec_context.time_base = 64, 48, Fraction(1, 1000)
        for level, time in zip(levels, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_a_variable_frame_rate(tmp_path):
    """Seeking misses frames, and those that it finds look like the right ones where nothing moves."""
    write_variable_rate(tmp_path / "clip.mp4", [index // 40 * 50 for index in range(200)])
    video = VideoFrames(tmp_path / "clip.mp4")
    levels = [int(frame.mean()) for frame in video.read(range(200), 0)]
    assert len(set(levels)) == 5
    assert [int(frame.mean()) for frame in video.read(range(199, -1, -1), 0)] == levels[::-1]
    for start in range(0, 200, 16):
        assert [int(frame.mean()) for frame in video.read(range(start, 200), 0)] == levels[start:]


@pytest.mark.parametrize(("expected", "fps", "problem"), [
    (50, 25, None), (0, 25, None), (100, 25, "is the file incomplete, or was it trimmed?"),
    (100, 50, "its frame rate varies, or it is damaged"),           # 50 frames last as long as the 100 claimed ones
])
def test_videos_with_fewer_frames_than_claimed(tmp_path, expected, fps, problem):
    write_video(tmp_path / "clip.mp4", [np.full((48, 64, 3), 5 * index, np.uint8) for index in range(50)])
    video = VideoFrames(tmp_path / "clip.mp4", scan=False)
    video.expected, video.fps = expected, fps
    video.scan(lambda index, frame: None)
    assert len(video.names) == 50
    assert video.problem == (problem and f"only 50 of 100 frames can be decoded; {problem}")


def test_an_interlaced_video_is_decoded_or_reported(tmp_path, capsys):
    path = tmp_path / "clip.mpg"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(20):
            frame = np.full((48, 64, 3), 12 * index, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    levels, err = [int(frame.mean()) for frame in VideoFrames(path).read(range(20), 0)], capsys.readouterr().err
    if cv2.__version__ < "4.13":
        assert levels == pytest.approx(range(0, 240, 12), abs=2)
        assert err == ""
    else:
        assert f"all 20 frames are equal; if the video is interlaced, decode it with ffmpeg -i {path} -vf yadif" in err


def test_a_video_without_motion_is_reported_as_possibly_interlaced(tmp_path, capsys):
    write_video(tmp_path / "clip.mp4", [np.full((48, 64, 3), 90, np.uint8)] * 20)
    assert len(VideoFrames(tmp_path / "clip.mp4").names) == 20
    assert "all 20 frames are equal; if the video is interlaced" in capsys.readouterr().err


def test_files_that_are_no_videos_are_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("hello" * 100)
    with pytest.raises(InputError, match=r"text\.mp4: not a video"):
        VideoFrames(tmp_path / "text.mp4")
    write_video(tmp_path / "none.mp4", [])
    with pytest.raises(InputError, match=r"none\.mp4"):
        VideoFrames(tmp_path / "none.mp4")


def test_a_clip_is_checked_before_the_work_starts(tmp_path):
    write_clip(tmp_path, frames=4, height=32, width=48, objects=2, seed=0)
    assert len(open_clip(None, tmp_path / "frames", tmp_path / "masks").masks) == 4
    Image.new("RGB", (50, 32)).save(tmp_path / "frames" / "00003.jpg")
    with pytest.raises(InputError, match=r"00003\.jpg: 50x32 pixels, the frames before it 48x32"):
        open_clip(None, tmp_path / "frames", tmp_path / "masks")
    for index in range(4):
        write_mask(tmp_path / "masks" / f"{index:05d}.png", np.zeros((32, 48), np.uint8), davis_palette())
    with pytest.raises(InputError, match=r"00000\.png: no object in this mask.*3 other"):
        open_clip(None, tmp_path / "frames", tmp_path / "masks")


def test_reading_ahead_keeps_the_order_and_passes_errors_on():
    def work(item):
        if item == 7:
            raise InputError("seven")
        return item * item
    for workers in (0, 1, 4):
        results = map_in_threads(work, range(10), workers)
        assert [next(results) for _ in range(7)] == [item * item for item in range(7)]
        with pytest.raises(InputError, match="seven"):
            next(results)


def test_an_output_folder_that_holds_the_input_is_refused(tmp_path):
    write_clip(tmp_path, frames=2, height=32, width=48, objects=1, seed=0)
    video = open_clip(None, tmp_path / "frames", tmp_path / "masks")
    for folder in (tmp_path / "frames", tmp_path / "masks", tmp_path):
        with pytest.raises(InputError, match="holds frames or masks that are read"):
            check_output_is_not_input(folder, video)
    check_output_is_not_input(tmp_path / "new", video)


def test_overlay_tints_objects_only():
    frame = np.full((48, 64, 3), 100, np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    overlay = draw_overlay(frame, mask, davis_palette())
    assert (overlay[15:25, 15:35] == [114, 50, 50]).all()                 # half of each, inside the outline
    assert (overlay[mask == 0] == 100).all() or (overlay[0:8] == 100).all()
    assert (overlay[10, 10:40] == [255, 128, 128]).all()


def test_overlay_video_and_sheet_show_every_frame(tmp_path):
    write_clip(tmp_path, frames=5, height=33, width=49, objects=1, seed=0)      # odd sides: MPEG-4 has none
    video = Video("x", ImageFrames(sorted((tmp_path / "frames").iterdir())))
    write_overlay(video, tmp_path / "masks", davis_palette(), tmp_path / "overlay")
    written = VideoFrames(tmp_path / "overlay" / "overlay.mp4")
    assert len(written.names) == 5
    assert next(written.read([0], 0)).shape == (32, 48, 3)
    assert Image.open(tmp_path / "overlay" / "contact_sheet.png").size == (4 * 320, 2 * 216)


def test_an_overlay_that_cannot_be_written_is_noticed(tmp_path):
    write_clip(tmp_path, frames=8, height=96, width=128, objects=1, seed=0)
    video = Video("x", ImageFrames(sorted((tmp_path / "frames").iterdir())))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))         # as a full disk; OpenCV reports no error
    try:
        with pytest.raises(InputError, match=r"overlay\.mp4: only 0 of 8 frames were written; is the disk full"):
            write_overlay(video, tmp_path / "masks", davis_palette(), tmp_path / "overlay")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def lite():
    return load_network(LITE_WEIGHTS)


@pytest.fixture
def short_clip(tmp_path):
    write_clip(tmp_path, frames=2, height=32, width=48, objects=1, seed=0)
    return Video("x", ImageFrames(sorted((tmp_path / "frames").iterdir())), {0: tmp_path / "masks/00000.png"})


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), OSError(12, "Cannot allocate memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")])
def test_out_of_memory_names_the_frame_and_a_remedy(error, lite, short_clip, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(InferenceCore, "step", fail)
    frames = propagate(PropagationConfig().new_core(lite), short_clip, PropagationConfig(), [0, 1], Timer())
    with pytest.raises(InputError, match=r"00000\.jpg: out of memory with 1 object at 48x32 pixels; try a smaller"):
        next(frames)


def test_a_size_that_cannot_fit_in_memory_is_refused_before_the_work(lite, short_clip, monkeypatch):
    monkeypatch.setattr(InferenceCore, "step", pytest.fail)
    pages = {"SC_PHYS_PAGES": 10 ** 6, "SC_PAGE_SIZE": 4000}
    monkeypatch.setattr(propagation.os, "sysconf", pages.get)
    with pytest.raises(InputError, match=r"00000\.jpg: at 98304x65536 pixels it needs at least 773 GB of memory, there "
                                         r"are 4 GB; try --size (\d+)") as error:
        next(propagate(PropagationConfig().new_core(lite), short_clip, PropagationConfig(size=65536), [0, 1], Timer()))
    fitting = int(str(error.value).split()[-1])
    assert 1000 < fitting < 2000
    assert fitting % 16 == 0
    propagation.check_memory("x", (fitting, fitting * 3 // 2), torch.device("cpu"))


def test_a_video_with_a_colon_in_its_name_is_no_url(tmp_path, monkeypatch):
    write_video(tmp_path / "12:30.mp4", [frame for frame, _ in draw_clip(3, 48, 64, 1, seed=0)])
    monkeypatch.chdir(tmp_path)
    assert len(VideoFrames(Path("12:30.mp4")).names) == 3


def test_a_name_that_is_utf8_in_a_locale_that_is_not(tmp_path):
    write_video(tmp_path / "café.mp4", [frame for frame, _ in draw_clip(3, 48, 64, 1, seed=0)])
    code = "import sys; from pathlib import Path; from dataset.video_reader import VideoFrames\n" \
           "print(len(VideoFrames(next(Path(sys.argv[1]).glob('*.mp4'))).names))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, env={**os.environ, **plain}, text=True,
                             capture_output=True)
    assert (process.stdout, process.stderr) == ("3\n", "")


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 66.667, 143.981, 240])
def test_overlays_of_any_frame_rate(tmp_path, fps):
    write_clip(tmp_path, frames=3, height=32, width=48, objects=1, seed=0)
    video = open_clip(None, tmp_path / "frames", tmp_path / "masks")
    video.frames.fps = fps
    write_overlay(video, tmp_path / "masks", davis_palette(), tmp_path / "overlay")
    assert VideoFrames(tmp_path / "overlay/overlay.mp4").fps == pytest.approx(fps, abs=0.05)


def test_names_that_crash_opencv_are_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"clip\xff.mp4")
    path.touch()
    with pytest.raises(InputError, match="OpenCV cannot open names that are not UTF-8; rename it"):
        VideoFrames(path)


def test_an_animation_is_no_folder_of_frames(tmp_path):
    write_clip(tmp_path / "clip", frames=3, height=32, width=48, objects=1, seed=0)
    first, *others = [Image.open(path) for path in sorted((tmp_path / "clip/frames").iterdir())]
    for suffix in ("png", "webp"):
        folder = tmp_path / suffix
        folder.mkdir()
        first.save(folder / f"00000.{suffix}", save_all=True, append_images=others)
        with pytest.raises(InputError, match=rf"00000\.{suffix}: an animation, of which only the first frame"):
            open_clip(None, folder, tmp_path / "clip/masks/00000.png")
    first.save(tmp_path / "png" / "00000.png")
    assert len(open_clip(None, tmp_path / "png", tmp_path / "clip/masks/00000.png").frames.names) == 1
    os.mkfifo(tmp_path / "png" / "00001.png")
    with pytest.raises(InputError, match=r"00001\.png: not a regular file"):
        open_clip(None, tmp_path / "png", tmp_path / "clip/masks/00000.png")
    with pytest.raises(InputError, match=r"00001\.png: not a regular file"):
        open_clip(tmp_path / "png/00001.png", None, tmp_path / "clip/masks/00000.png")
