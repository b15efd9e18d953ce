"""Users' clips: which mask belongs to which frame, both directions, video files, pictures."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataset.clip import find_masks, natural_order, open_clip
from dataset.image_io import write_mask
from dataset.synthetic import draw_clip, write_clip
from dataset.video import Video
from dataset.video_reader import ImageFrames, VideoFrames, read_ahead
from inference.bidirectional import frame_ranges, merge
from inference.overlay import draw_overlay, write_overlay
from inference.propagation import PropagationConfig, Timer, propagate
from inference.results import check_output_is_not_input, check_replaceable
from inference_core import InferenceCore
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from util.cli import InputError
from util.files import atomic_folder
from util.palette import davis_palette


def frames_called(*names):
    return ImageFrames([Path(f"{name}.jpg") for name in names])


def test_frames_are_ordered_as_people_count():
    names = ["f10.jpg", "f9.jpg", "f1.jpg", "F2.jpg", "a.jpg", "2.jpg", "10.jpg"]
    assert sorted(names, key=natural_order) == ["2.jpg", "10.jpg", "a.jpg", "f1.jpg", "F2.jpg", "f9.jpg", "f10.jpg"]


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_masks_belong_to_the_frames_they_are_named_after(tmp_path, capsys):
    frames = frames_called("00000", "00001", "00002")
    folder = touch(tmp_path / "a", "00002.png", "00000.png")
    assert find_masks(frames, folder, numbered=False) == {0: folder / "00000.png", 2: folder / "00002.png"}
    assert find_masks(frames, folder / "00002.png", numbered=False) == {2: folder / "00002.png"}
    assert capsys.readouterr().err == ""
    folder = touch(tmp_path / "b", "first mask.png")
    assert find_masks(frames, folder / "first mask.png", numbered=False) == {0: folder / "first mask.png"}
    assert "taken for the first one (00000)" in capsys.readouterr().err
    folder = touch(tmp_path / "c", "2.png")
    assert find_masks(frames, folder, numbered=True) == {2: folder / "2.png"}


@pytest.mark.parametrize(("name", "single", "numbered"), [
    ("00007.png", False, False), ("other.png", False, False), ("00007.png", True, False), ("7.png", True, True)])
def test_masks_named_after_no_frame_are_refused(tmp_path, name, single, numbered):
    folder = touch(tmp_path / "masks", name)
    with pytest.raises(InputError, match=rf"{name}: a mask named after no frame \(frames are called 00000 to 00002"):
        find_masks(frames_called("00000", "00001", "00002"), folder / name if single else folder, numbered)


def test_two_masks_for_a_frame_are_refused(tmp_path):
    with pytest.raises(InputError, match="a second mask"):
        find_masks(frames_called("00000"), touch(tmp_path / "m", "0.png", "00.png"), numbered=True)


def test_directions_cover_what_they_say():
    video = Video("x", frames_called(*"abcdefgh"), {2: Path("c"), 5: Path("f")})
    assert frame_ranges(video, "forward") == (range(2, 8), range(0))
    assert frame_ranges(video, "backward") == (range(0), range(5, -1, -1))
    assert frame_ranges(video, "both") == (range(2, 8), range(5, -1, -1))
    assert frame_ranges(Video("x", frames_called("a", "b"), {0: Path("a")}), "both") == (range(0, 2), range(0))


def test_merging_fills_in_what_only_the_other_way_knows():
    mask, other = np.array([[1, 0, 0, 2]], np.uint8), np.array([[3, 3, 1, 3]], np.uint8)
    assert merge(mask, other, known=[1, 2]).tolist() == [[1, 3, 0, 2]]


def write_video(path, frames, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


@pytest.mark.parametrize("honest_seeking", [True, False])
def test_a_video_is_the_same_backward(tmp_path, monkeypatch, honest_seeking):
    drawn = [frame for frame, _ in draw_clip(50, 48, 64, 2, seed=3)]
    write_video(tmp_path / "clip.mp4", drawn)
    video = VideoFrames(tmp_path / "clip.mp4")
    if not honest_seeking:
        video._fingerprints = [0 for _ in video._fingerprints]
    assert (len(video.names), video.names[0], video.names[-1], video.fps) == (50, "00000", "00049", 25)
    forward = list(video.read(range(50), 1))
    assert np.abs(forward[20].astype(int) - drawn[20]).mean() < 20          # RGB, in order, up to compression
    assert np.abs(forward[20].astype(int) - drawn[20][..., ::-1]).mean() > 20
    for start in (49, 32, 31, 3):
        backward = list(video.read(range(start, -1, -1), 1))
        assert all(np.array_equal(a, b) for a, b in zip(reversed(backward), forward[:start + 1], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(video.read(range(37, 50), 1), forward[37:], strict=True))


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("hello" * 100)
    with pytest.raises(InputError, match=r"text\.mp4: not a video"):
        VideoFrames(tmp_path / "text.mp4")
    write_video(tmp_path / "none.mp4", [])
    with pytest.raises(InputError, match=r"none\.mp4"):
        VideoFrames(tmp_path / "none.mp4")


def test_a_clip_is_looked_through_before_work_begins(tmp_path):
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
        results = read_ahead(work, range(10), workers)
        assert [next(results) for _ in range(7)] == [item * item for item in range(7)]
        with pytest.raises(InputError, match="seven"):
            next(results)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    final = tmp_path / "out"

    def fail():
        with atomic_folder(final) as folder:
            (folder / "half.png").touch()
            raise InputError("stop")
    with pytest.raises(InputError):
        fail()
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with atomic_folder(final) as folder:
            (folder / content).touch()
            assert not (final / content).exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "second"]


def test_nothing_that_is_not_ours_is_replaced(tmp_path):
    write_clip(tmp_path, frames=2, height=32, width=48, objects=1, seed=0)
    video = open_clip(None, tmp_path / "frames", tmp_path / "masks")
    for folder in (tmp_path / "frames", tmp_path / "masks", tmp_path):
        with pytest.raises(InputError, match="holds frames or masks that are read"):
            check_output_is_not_input(folder, video)
    check_output_is_not_input(tmp_path / "new", video)
    other = touch(tmp_path / "other", "thesis.tex")
    names = ["00000", "00001"]
    for foreign in ("thesis.tex", "holiday.png", "overlay/notes.txt"):
        other = touch(tmp_path / "other", "00000.png", ".DS_Store")
        (other / "overlay").mkdir(exist_ok=True)
        (other / foreign).touch()
        with pytest.raises(InputError, match=rf"no mask of this clip \({foreign}"):
            check_replaceable(other, names, overwrite=True)
        (other / foreign).unlink()
    check_replaceable(other, names, overwrite=True)
    with pytest.raises(InputError, match="or --overwrite them"):
        check_replaceable(other, names, overwrite=False)
    check_replaceable(tmp_path / "nothing", names, overwrite=False)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="broken link"):
        check_replaceable(tmp_path / "link", names, overwrite=True)


def test_a_folder_that_is_there_stays_itself(tmp_path):
    real = touch(tmp_path / "real", "00000.png", "00001.png")
    (tmp_path / "link").symlink_to(real)
    number = real.stat().st_ino
    with atomic_folder(tmp_path / "link") as folder:
        (folder / "00000.png").write_text("new")
        (folder / "overlay").mkdir()
        assert (real / "00001.png").exists()
    assert (tmp_path / "link").is_symlink()
    assert real.stat().st_ino == number
    assert sorted(path.name for path in real.iterdir()) == ["00000.png", "overlay"]
    assert (real / "00000.png").read_text() == "new"


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    def twice():
        with atomic_folder(tmp_path / "out"), atomic_folder(tmp_path / "out"):
            pass
    with pytest.raises(InputError, match="another run is writing there"):
        twice()


def test_overlay_tints_objects_and_nothing_else():
    frame = np.full((48, 64, 3), 100, np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    picture = draw_overlay(frame, mask, davis_palette())
    assert (picture[15:25, 15:35] == [114, 50, 50]).all()                 # half of each, inside the outline
    assert (picture[mask == 0] == 100).all() or (picture[0:8] == 100).all()
    assert (picture[10, 10:40] == [255, 128, 128]).all()


def test_overlay_video_and_sheet_show_every_frame(tmp_path):
    write_clip(tmp_path, frames=5, height=33, width=49, objects=1, seed=0)      # odd sides: MPEG-4 has none
    video = Video("x", ImageFrames(sorted((tmp_path / "frames").iterdir())))
    write_overlay(video, tmp_path / "masks", davis_palette(), tmp_path / "overlay")
    written = VideoFrames(tmp_path / "overlay" / "overlay.mp4")
    assert len(written.names) == 5
    assert next(written.read([0], 0)).shape == (32, 48, 3)
    assert Image.open(tmp_path / "overlay" / "contact_sheet.png").size == (4 * 320, 2 * 216)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), OSError(12, "Cannot allocate memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")])
def test_out_of_memory_is_told_with_what_helps(error, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    write_clip(tmp_path, frames=2, height=32, width=48, objects=1, seed=0)
    video = Video("x", ImageFrames(sorted((tmp_path / "frames").iterdir())), {0: tmp_path / "masks/00000.png"})
    monkeypatch.setattr(InferenceCore, "step", fail)
    frames = propagate(load_network(LITE_WEIGHTS), video, PropagationConfig(), [0, 1], Timer())
    with pytest.raises(InputError, match="00000.jpg: out of memory with 1 object at 48x32 pixels; try a smaller size"):
        next(frames)
