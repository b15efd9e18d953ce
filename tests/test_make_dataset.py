"""Synthetic training data: cut-outs of annotated photographs, composed scenes, and the script that makes them."""
import errno
import json
import sys

import numpy as np
import pytest
from PIL import Image

from dataset import composed
from dataset.composed import _Actor, _smoke, compose_video, write_video
from dataset.cutouts import Sources, cut_out_objects, find_images, load_moving_object, load_object, load_scene
from dataset.image_io import read_mask, write_mask
from dataset.stages import davis_training_videos
from scripts import draw_clip, make_dataset
from util.cli import InputError
from util.palette import davis_palette

DRAWN = Sources()
SMALL = ("--images", "6", "--videos", "2", "--frames", "3", "--height", "64", "--workers", "1")


@pytest.fixture
def annotated(tmp_path):
    """Two photographs: a large object (1), an object in two pieces (2), and one that is too small (3)."""
    folder = tmp_path / "annotated"
    labels = np.zeros((320, 400), np.uint8)
    labels[20:120, 30:130], labels[200:260, 20:80], labels[200:260, 120:180], labels[300:310, 300:310] = 1, 2, 2, 3
    for name, level in (("a", 100), ("b", 200)):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        image = np.full((320, 400, 3), level, np.uint8)
        image[labels > 0] = level // 2
        Image.fromarray(image).save(folder / f"images/{name}.jpg", quality=95)
        write_mask(folder / f"masks/{name}.png", labels, davis_palette())
    return folder


@pytest.fixture
def make(monkeypatch):
    """Runs make_dataset.py in this process."""
    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        monkeypatch.setattr("progressbar.streams.original_stderr", sys.stderr)      # else that of the first import
        make_dataset.main()
    return make


def stamps(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_objects_are_cut_out_with_alpha(annotated, tmp_path):
    cut_out_objects(annotated, tmp_path / "out", parts=False)
    images = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").iterdir()}
    assert {name: image.shape for name, image in images.items()} == {
        "a__0.png": (100, 100, 4), "a__1.png": (60, 160, 4), "b__0.png": (100, 100, 4), "b__1.png": (60, 160, 4)}
    for name, image in images.items():
        inside = image[..., 3] > 127
        assert np.abs(image[inside][:, :3].astype(int) - (50 if name[0] == "a" else 100)).max() < 8
        assert inside.mean() == pytest.approx(1 if "__0" in name else 0.75, abs=0.08)
        assert set(image[:3, :3, 3].ravel()) - {255}                              # a smooth edge


def test_parts_belong_to_one_object(annotated, tmp_path):
    cut_out_objects(annotated, tmp_path / "out", parts=True)
    assert Image.open(tmp_path / "out/a__0.png").size == (160, 240)               # from object 1 to object 2
    assert sorted(path.name for path in (tmp_path / "out").glob("a__*")) == ["a__0.png", "a__1.png", "a__2.png"]


def test_a_mask_without_an_image_is_named(annotated, tmp_path):
    (annotated / "images/b.jpg").unlink()
    with pytest.raises(InputError, match=r"b\.png: .*images has no image of this name"):
        cut_out_objects(annotated, tmp_path / "out", parts=False)
    assert not (tmp_path / "out").exists()


def test_a_photograph_is_no_background_of_its_own_objects(annotated, tmp_path):
    cut_out_objects(annotated, tmp_path / "out", parts=False)
    sources = Sources((), find_images([tmp_path / "out"], {".png"}))
    assert len(sources.cutouts) == 4
    for photograph, expected in ((annotated / "images/a.jpg", {100}), (None, {50, 100})):
        seen = set()
        for seed in range(30):
            layer = load_object(np.random.default_rng(seed), sources, photograph)
            plain = layer[layer[..., 3] == 255][:, :3]
            if plain.std() < 5:                       # not drawn
                seen.add(int(round(plain.mean(), -1)))
        assert seen == expected


def test_some_objects_grow_several_times_and_smoke_covers_the_frame():
    layers, times = [np.full((60, 60, 4), 255, np.float32)], np.linspace(0, 1, 9)
    growth = [(scales.max() / scales.min()) for scales in
              (_Actor(np.random.default_rng(seed), layers, times, 90, 160).scales for seed in range(60))]
    assert 0.15 < np.mean(np.array(growth) > 2) < 0.5
    assert 4 < max(growth) < 12
    first, *_, last = _smoke(np.random.default_rng(0), 5, 90, 160)
    assert first.shape == last.shape == (90, 160, 1)
    assert 0 < first.mean() < 0.9
    assert np.abs(first - last).max() > 0.05


def test_a_scene_depends_on_its_seed_only():
    scenes = [list(compose_video(seed, DRAWN, 3, 48, 64)) for seed in ((1, 2), (1, 2), (1, 3))]
    assert [len(scene) for scene in scenes] == [3, 3, 3]
    assert all((a == b).all() for one, two in zip(*scenes[:2], strict=True) for a, b in zip(one, two, strict=True))
    assert (scenes[0][0][0] != scenes[2][0][0]).any()


@pytest.fixture
def davis(tmp_path):
    """A DAVIS folder with one video of six frames: a grey square (value 5) that moves and grows over black."""
    trainval = tmp_path / "DAVIS/2017/trainval"
    for folder in ("JPEGImages/480p/v", "Annotations/480p/v", "ImageSets/2017"):
        (trainval / folder).mkdir(parents=True)
    for index in range(6):
        mask = np.zeros((180, 320), np.uint8)
        mask[40:120 + 6 * index, 20 + 10 * index:100 + 16 * index] = 5
        write_mask(trainval / f"Annotations/480p/v/{index:05d}.png", mask, davis_palette())
        grey = np.where(mask, 100 + 10 * index, 0).astype(np.uint8)
        Image.fromarray(np.dstack([grey] * 3)).save(trainval / f"JPEGImages/480p/v/{index:05d}.jpg", quality=95)
    (trainval / "ImageSets/2017/train.txt").write_text("v\n")
    return tmp_path / "DAVIS"


def test_objects_move_as_in_their_video(davis):
    video, = davis_training_videos(davis)
    directions = set()
    for seed in range(10):
        layers = load_moving_object(np.random.default_rng(seed), video, 4)
        assert len(layers) == 4
        assert len({layer.shape for layer in layers}) == 1
        levels, sizes = [], []
        for layer in layers:
            rows, columns = np.nonzero(layer[..., 3] > 127)
            assert abs(rows.min() + rows.max() + 1 - layer.shape[0]) <= 2                   # centred
            assert abs(columns.min() + columns.max() + 1 - layer.shape[1]) <= 2
            levels.append(np.median(layer[rows, columns, 0]))
            sizes.append(len(rows))
        assert np.abs(np.diff(levels)) == pytest.approx([10, 10, 10], abs=2)
        directions.add(levels[0] < levels[-1])
        assert (levels[0] < levels[-1]) == (sizes[0] < sizes[-1])
    assert directions == {True, False}
    levels = [int(layer[..., 0].max()) for layer in load_moving_object(np.random.default_rng(0), video, 9)]
    assert min(np.abs(np.diff(levels))) > 5                 # longer than the video: continued backward, not frozen


def test_a_video_can_be_the_scene_with_its_own_objects(davis):
    sources = Sources(videos=davis_training_videos(davis))
    for image, labels in load_scene(np.random.default_rng(0), sources.videos[0], 4, 45, 80):
        assert image.shape == (45, 80, 3)
        assert set(np.unique(labels)) == {0, 1}
        assert image[labels == 0].mean() < 15 < 80 < image[labels == 1].mean()
    scenes = [list(compose_video((seed,), sources, 3, 45, 80)) for seed in range(12)]
    masks = [np.stack([mask for _, mask in scene]) for scene in scenes]
    assert {int(mask.max()) for mask in masks} > {1, 3}
    assert all(mask.max() <= 5 for mask in masks)


def test_objects_of_a_scene_are_not_added_to_it_again(davis, monkeypatch):
    chosen = {}

    def record(name):
        load = getattr(composed, name)

        def recorded(rng, video, *args):
            chosen[name].add(video)
            return load(rng, video, *args)
        monkeypatch.setattr(composed, name, recorded)

    record("load_scene")
    record("load_moving_object")
    for name, fraction in (("DRAWN", 0), ("SCENES", 1), ("MOVING", 1)):
        monkeypatch.setattr(composed, name, fraction)
    video = tuple(davis_training_videos(davis)[0])
    videos, moving = (video, video[:-1]), set()
    for seed in range(10):
        chosen.update(load_scene=set(), load_moving_object=set())
        list(compose_video((seed,), Sources(videos=videos), 3, 45, 80))
        assert len(chosen["load_scene"]) == 1
        assert not chosen["load_scene"] & chosen["load_moving_object"]
        moving |= chosen["load_moving_object"]
    assert moving == set(videos)


def test_a_scene_and_its_masks_are_aligned(davis):
    (video,), shifts = davis_training_videos(davis), []
    for seed in range(20):
        for image, labels in load_scene(np.random.default_rng(seed), video, 3, 360, 640):
            by_image, by_mask = (np.mean(np.nonzero(part), 1) for part in (image[..., 0] > 60, labels))
            shifts.append(by_image - by_mask)
    assert np.abs(np.mean(shifts, 0)).max() < 0.15


def test_a_frame_of_another_size_is_named(davis):
    folder = davis / "2017/trainval"
    Image.new("RGB", (160, 90)).save(folder / "JPEGImages/480p/v/00003.jpg")
    write_mask(folder / "Annotations/480p/v/00003.png", np.zeros((90, 160), np.uint8), davis_palette())
    video, = davis_training_videos(davis)
    with pytest.raises(InputError, match="jpg: another size than other frames of this video"):
        load_scene(np.random.default_rng(0), video, 6, 45, 80)


def test_videos_without_objects_still_give_scenes_with_objects(davis):
    for mask in (davis / "2017/trainval/Annotations/480p/v").iterdir():
        write_mask(mask, np.zeros((180, 320), np.uint8), davis_palette())
    sources = Sources(videos=davis_training_videos(davis))
    assert load_moving_object(np.random.default_rng(0), sources.videos[0], 4) == []
    labels = [[mask.max() for _, mask in compose_video((seed,), sources, 3, 90, 160)] for seed in range(20)]
    assert np.mean(np.max(labels, 1) > 0) > 0.9


def test_davis_videos_are_a_source(davis, tmp_path, make, capsys):
    make(tmp_path / "out", *SMALL, "--photos", "--cutouts", "--kinds", "static", "yv", "--davis_root", davis)
    assert "sources: 0 photographs, 0 cut-outs, 1 video; the rest is drawn\n" in capsys.readouterr().out
    assert len(list((tmp_path / "out/YouTube").rglob("*.png"))) == 2 * 3
    with pytest.raises(InputError, match=r"train\.txt: no such file"):
        make(tmp_path / "other", *SMALL, "--davis_root", tmp_path)
    assert not (tmp_path / "other").exists()


def test_the_chosen_kinds_are_made_once(annotated, tmp_path, make, capsys):
    arguments = (tmp_path / "out", *SMALL, "--photos", "--cutouts", "--annotated", annotated)
    make(*arguments, "--kinds", "yv")
    assert "sources: 2 photographs, 4 cut-outs, 0 videos\n" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"YouTube", "cutouts", "settings.json"}
    before = stamps(tmp_path / "out")
    make(*arguments)
    after = stamps(tmp_path / "out")
    del before[next(path for path in before if path.name == "settings.json")]
    assert before.items() <= after.items()
    files = [path.as_posix() for path in after]
    assert sum(path.startswith("static/") for path in files) == 2 * 6
    for folder, names in (("BL30K/{}", "012"), ("DAVIS/2017/trainval/{}/480p", "012"),
                          ("YouTube/train_480p/{}", ("0", "5", "10"))):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            found = [path for path in files if path.startswith(folder.format(kind) + "/")]
            assert len(found) == 6
            assert {path.rsplit("/")[-1] for path in found} == {f"{int(name):05d}.{suffix}" for name in names}
    masks = [read_mask(path) for path in (tmp_path / "out/BL30K/Annotations").rglob("*.png")]
    assert all(mask.shape == (64, 112) for mask in masks)
    assert any(mask.any() for mask in masks)
    assert (tmp_path / "out/DAVIS/2017/trainval/ImageSets/2017/train.txt").read_text() == "davis0000\ndavis0001\n"


def test_a_folder_can_be_cut_out_both_ways(annotated, tmp_path, make):
    make(tmp_path / "out", *SMALL, "--photos", "--cutouts", "--kinds", "yv", "--annotated", annotated,
         "--parts", annotated)
    assert [len(list((tmp_path / "out/cutouts" / name).iterdir())) for name in "01"] == [4, 6]


def test_the_same_seed_makes_the_same_data(tmp_path, make):
    for name in ("one", "two"):
        make(tmp_path / name, *SMALL, "--photos", "--cutouts", "--kinds", "static", "davis")
    one, two = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                for folder in (tmp_path / "one", tmp_path / "two"))
    assert one == two
    assert len(one) == 2 * 6 + 2 * 2 * 3 + 2 + 1            # lists, settings


@pytest.mark.parametrize(("arguments", "message"), [
    (("--photos", "nowhere"), "nowhere: no such folder"),
    (("--annotated", "nowhere"), "nowhere: no such folder"),
    (("--height", "48"), "contains data made with other settings"),
])
def test_bad_input_is_refused(tmp_path, make, arguments, message):
    (tmp_path / "settings.json").write_text(json.dumps({"seed": 1}))
    with pytest.raises(InputError, match=message):
        make(tmp_path, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def fill_disk(monkeypatch):
    def save(self, path, *args, **options):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Image.Image, "save", save)


def test_a_full_disk_names_the_video_and_leaves_nothing(tmp_path, monkeypatch):
    images, masks = tmp_path / "JPEGImages/a", tmp_path / "Annotations/a"
    fill_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left") as caught:
        write_video(images, masks, (1,), DRAWN, 3, 48, 1)
    assert caught.value.filename.startswith(str(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_clip_can_be_drawn_after_the_disk_was_full(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "clip"), "--frames", "2", "--width", "64", "--height", "48"])
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(OSError, match="No space left") as caught:
            draw_clip.main()
    assert caught.value.filename == str(tmp_path / "clip")
    assert not list(tmp_path.iterdir())
    draw_clip.main()
    assert len(list((tmp_path / "clip").rglob("*.*"))) == 4
    with pytest.raises(InputError, match="clip/frames: exists already"):
        draw_clip.main()


def test_a_clip_has_at_most_4096_pixels_a_side(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "clip"), "--width", "100000"])
    with pytest.raises(InputError, match="--width 100000: must be at most 4096"):
        draw_clip.main()
