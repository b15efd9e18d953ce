"""Training data: image and mask stay aligned, draws are reproducible, bad files are named and replaced."""
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from dataset.image_io import write_mask
from dataset.stages import TrainingSet, bl30k_stage, collate, static_stage, video_stage
from dataset.static_dataset import StaticDataset, static_pairs
from dataset.synthetic import write_clip
from dataset.transforms import (
    Affine,
    ThinPlateWarp,
    static_frame,
    static_sequence,
    video_frame,
    video_sequence,
)
from dataset.vos_dataset import VOSDataset, video_pairs
from util.cli import InputError
from util.palette import davis_palette

GREY, WHITE = 40, 220


def blob(height=200, width=260):
    """An image whose object differs in colour, and its mask."""
    y, x = np.mgrid[:height, :width]
    inside = ((y - 90) / 50) ** 2 + ((x - 140) / 70) ** 2 < 1
    inside[80:100, 200:240] = True
    image = np.where(inside, WHITE, GREY).astype(np.uint8)
    return (tv_tensors.Image(torch.from_numpy(image)[None].repeat(3, 1, 1)),
            tv_tensors.Mask(torch.from_numpy((inside * 255).astype(np.uint8))[None]))


def misaligned(image, mask):
    """Count the pixels of the object, by colour or by mask, that are not within a pixel of the other."""
    by_colour, by_mask = image.float().mean(-3) > 150, mask[..., 0, :, :] > 127

    def grown(area):
        return torch.nn.functional.max_pool2d(area[None].float(), 3, 1, 1)[0] > 0
    return int((by_colour & ~grown(by_mask)).sum() + (by_mask & ~grown(by_colour)).sum())


@pytest.mark.parametrize(("name", "transform"), [
    ("affine", Affine(30, (0.7, 1.3), 15)), ("thin plate", ThinPlateWarp()),
    ("static sequence", static_sequence()), ("static frame", static_frame(192)),
    ("video sequence", video_sequence(0.36, 192)), ("video frame", video_frame())])
def test_image_and_mask_stay_aligned(name, transform):
    moved = False
    for seed in range(12):
        torch.manual_seed(seed)
        image, mask = blob()
        new_image, new_mask = transform(image, mask)
        assert new_image.shape[-2:] == new_mask.shape[-2:]
        # A few pixels at sharp corners aside, where a cubic and a nearest sample differ; a shift shows at once.
        assert misaligned(new_image, new_mask) <= 6, seed
        if new_mask[0].sum() > 255 * 2000:
            assert misaligned(new_image, tv_tensors.Mask(new_mask.roll(3, -1))) > 40, seed
        moved |= new_mask.shape != mask.shape or not torch.equal(new_mask, mask)
    assert moved


def test_frames_of_a_sequence_share_its_geometry():
    torch.manual_seed(0)
    image, mask = blob()
    frames, masks = tv_tensors.Image(torch.stack([image] * 3)), tv_tensors.Mask(torch.stack([mask] * 3))
    frames, masks = video_sequence(0.36, 192)(frames, masks)
    assert torch.equal(frames[0], frames[1])
    assert torch.equal(masks[0], masks[2])


def test_the_warp_is_exact_at_its_points():
    """Its map, solved on a coarse grid, is that of the spline itself everywhere within a fraction of a pixel."""
    from tps import ThinPlateSpline
    torch.manual_seed(3)
    params = ThinPlateWarp().make_params([torch.zeros(3, 96, 128)])
    torch.manual_seed(3)
    rows, columns = torch.randperm(96)[:12] / 96, torch.randperm(128)[:12] / 128
    points = torch.stack([rows, columns], 1).double().numpy()
    shifted = points + 0.02 * torch.randn(12, 2).double().numpy()
    spline = ThinPlateSpline(alpha=0.0).fit(points, shifted)
    np.testing.assert_allclose(spline.transform(points), shifted, atol=1e-6)
    y, x = np.mgrid[:96, :128]
    exact = spline.transform(np.stack([y.ravel() / 96, x.ravel() / 128], 1)).reshape(96, 128, 2) * [96, 128]
    assert np.abs(params["y"] - exact[..., 0]).max() < 0.5
    assert np.abs(params["x"] - exact[..., 1]).mean() < 0.05
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == 12


def static_folder(root, name="ecssd", images=4, by_class=False):
    for index in range(images):
        folder = root / name / f"class{index % 2}" if by_class else root / name
        folder.mkdir(parents=True, exist_ok=True)
        image, mask = blob()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"p{index}.jpg", quality=95)
        Image.fromarray(mask[0].numpy()).save(folder / f"p{index}.png")
    return root / name


def test_static_samples(tmp_path):
    static_folder(tmp_path)
    static_folder(tmp_path, "fss", by_class=True)
    data = static_stage(tmp_path, seed=1, size=96)
    assert len(data) == 8
    sample = data[(0, 5)]
    assert sample["frames"].shape == (3, 3, 96, 96)
    assert sample["masks"].shape == (1, 96, 96)
    assert set(sample["target"].unique().tolist()) == {0, 1}
    assert ((sample["masks"] > 0) & (sample["masks"] < 1)).any()            # soft into the network
    assert torch.equal(sample["masks"][0] > 0.5, sample["target"][0] == 1)
    assert not torch.equal(sample["target"][0], sample["target"][1])        # each frame its own geometry
    assert sample["skipped"] == []


def video_root(root, videos=2, frames=5, objects=2):
    davis, train = root / "DAVIS/2017/trainval", root / "YouTube/train_480p"
    for images, masks in ((davis / "JPEGImages/480p", davis / "Annotations/480p"),
                          (train / "JPEGImages", train / "Annotations"),
                          (root / "BL30K/JPEGImages", root / "BL30K/Annotations")):
        for index in range(videos):
            write_clip(root / "drawn", frames=frames, height=120, width=160, objects=objects, seed=index)
            images.mkdir(parents=True, exist_ok=True)
            masks.mkdir(parents=True, exist_ok=True)
            (root / "drawn/frames").rename(images / f"v{index}")
            (root / "drawn/masks").rename(masks / f"v{index}")
    (davis / "ImageSets/2017").mkdir(parents=True)
    (davis / "ImageSets/2017/train.txt").write_text("".join(f"v{index}\n" for index in range(videos)))
    return root


def test_video_samples(tmp_path):
    root = video_root(tmp_path)
    (root / "YouTube/train_480p/JPEGImages/v1").rename(root / "YouTube/train_480p/JPEGImages/5bc77844da")
    (root / "YouTube/train_480p/Annotations/v1").rename(root / "YouTube/train_480p/Annotations/5bc77844da")
    data = video_stage(root / "DAVIS", root / "YouTube", lambda samples: {11: 10}[samples], seed=1, size=96)
    assert len(data) == 5 * 2 + 1                                            # the faulty one is left out
    seen = set()
    for index in range(11):
        for epoch in range(2):
            sample = data[(epoch, index)]
            assert sample["frames"].shape == (3, 3, 96, 96)
            assert sample["masks"].shape == (2, 96, 96)
            for k in range(2):
                assert torch.equal(sample["masks"][k] == 1, sample["target"][0] == k + 1)
            assert sample["selector"].tolist() == [1, float(sample["masks"][1].any())]
            seen.add(tuple(sample["selector"].tolist()))
    assert (1, 1) in seen


def test_frames_without_objects_give_background(tmp_path):
    """The video has an object, but too small a one to be seen in what is drawn."""
    write_clip(tmp_path, frames=4, height=60, width=80, objects=1, seed=0)
    for path in (tmp_path / "masks").iterdir():
        write_mask(path, np.zeros((60, 80), np.uint8), davis_palette())
    speck = np.zeros((60, 80), np.uint8)
    speck[30, 40] = 1
    write_mask(tmp_path / "masks/00000.png", speck, davis_palette())
    pairs = [(tmp_path / f"frames/{i:05d}.jpg", tmp_path / f"masks/{i:05d}.png") for i in range(4)]
    sample = VOSDataset([pairs], lambda epoch: 5, skip_small=True, size=64).sample(0, 0)
    assert sample["selector"].tolist() == [1, 0]
    assert not sample["target"].any()
    assert not sample["masks"].any()


def test_small_objects_are_passed_over_in_bl30k():
    videos = VOSDataset([], lambda epoch: 5, skip_small=True)
    labels = torch.zeros(3, 100, 100, dtype=torch.long)
    labels[0, :31, :31] = 1                                 # over 30 x 30
    labels[:, 40:51, :11] = 2                               # over 10 x 10, small in all frames
    labels[0, 60:71, :11], labels[1, 60:80, 60:80] = 3, 3   # as small, but 20 x 20 in another frame
    labels[0, 90:100, :10] = 4                              # 10 x 10 only
    assert videos._candidates(labels) == [1, 2]
    assert VOSDataset([], lambda epoch: 5)._candidates(labels) == [1, 2, 3, 4]


def test_draws_depend_on_seed_epoch_and_index_only(tmp_path):
    static_folder(tmp_path)
    data, other = (static_stage(tmp_path, seed=seed, size=64) for seed in (1, 2))
    state = torch.get_rng_state()
    first = data[(0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(data[(0, 1)]["frames"], first["frames"])
    for different in (data[(1, 1)], data[(0, 2)], other[(0, 1)]):
        assert not torch.equal(different["frames"], first["frames"])
    assert torch.equal(static_stage(tmp_path, seed=1, size=64)[(0, 1)]["frames"], first["frames"])


def test_bad_files_are_named_and_replaced(tmp_path, capsys):
    folder = static_folder(tmp_path, images=8)
    (folder / "p0.jpg").write_bytes((folder / "p0.jpg").read_bytes()[:900])
    Image.new("L", (30, 30), 255).save(folder / "p2.png")
    Image.new("L", (260, 200)).save(folder / "p4.png")
    (folder / "p6.png").unlink()
    (tmp_path / "fss" / "empty class").mkdir(parents=True)
    static_folder(tmp_path, "fss", images=1, by_class=True)
    data = static_stage(tmp_path, seed=1, size=64)
    warnings = capsys.readouterr().err
    assert "1 image without a mask left out, the first: " + str(folder / "p6.jpg") in warnings
    assert "empty class: no images (.jpg) in it" in warnings
    assert "training without DUTS-TR, DUTS-TE, BIG_small, HRSOD_small: no such folders" in warnings
    batch = collate([data[(0, index)] for index in range(len(data))])
    assert batch["frames"].shape[0] == 8
    for message in ("p0.jpg: cannot be read", "p2.png: the mask is 30x30 pixels, its image 260x200",
                    "p4.png: no object in this mask"):
        assert sum(message in skipped for skipped in batch["skipped"]) == 1, message
    only_bad = TrainingSet([(StaticDataset([(folder / "p0.jpg", folder / "p0.png")], 64), 1)], seed=0)
    failure = collate([only_bad[(0, 0)]])
    assert isinstance(failure, InputError)
    assert re.match(r"none of the 1 training samples can be used; the first: .*p0\.jpg", str(failure))


def test_masks_of_many_kinds_are_taken(tmp_path):
    folder = static_folder(tmp_path, images=3)
    mask = np.asarray(Image.open(folder / "p0.png"))
    write_mask(folder / "p0.png", (mask > 0).astype(np.uint8), davis_palette())
    Image.fromarray(mask).convert("RGB").save(folder / "p1.png")
    Image.fromarray((mask > 0).astype(np.uint8)).save(folder / "p2.png")
    for index in range(3):
        sample = StaticDataset(static_pairs(folder, by_class=False), 96).sample(index, 0)
        assert sample["masks"].max() > 0.9, index
        assert (sample["target"] == 1).float().mean() > 0.02


def test_hidden_files_are_no_training_images(tmp_path):
    folder = static_folder(tmp_path, images=2)
    for name in ("._p0.jpg", "._p0.png"):                   # of macOS
        (folder / name).write_bytes(b"x")
    assert [image.name for image, _ in static_pairs(folder, by_class=False)] == ["p0.jpg", "p1.jpg"]
    (folder.parent / ".hidden").mkdir()
    assert len(static_pairs(folder.parent, by_class=True)) == 2


def test_exif_does_not_rotate_training_images(tmp_path):
    """As published: the masks of the data sets belong to the images as stored."""
    folder = static_folder(tmp_path, images=1)
    image = Image.open(folder / "p0.jpg")
    exif = image.getexif()
    exif[0x0112] = 6                        # to be shown rotated
    image.save(folder / "p0.jpg", exif=exif)
    assert StaticDataset(static_pairs(folder, by_class=False), 64).sample(0, 0)["frames"].shape == (3, 3, 64, 64)


@pytest.mark.parametrize(("break_it", "message"), [
    (lambda root: None, r"nowhere: no such folder"),
    (lambda root: (root / "nowhere").mkdir(), r"none of fss"),
    (lambda root: (root / "nowhere/ecssd").mkdir(parents=True), r"no image with a mask"),
])
def test_an_empty_static_root_is_refused(tmp_path, break_it, message):
    break_it(tmp_path)
    with pytest.raises(InputError, match=message):
        static_stage(tmp_path / "nowhere", seed=0)


def test_short_videos_are_left_out(tmp_path, capsys):
    root = video_root(tmp_path, frames=4)
    images, masks = root / "BL30K/JPEGImages", root / "BL30K/Annotations"
    (images / "v1/00003.jpg").unlink()
    (images / "v1/00002.jpg").unlink()
    assert len(bl30k_stage(root / "BL30K", lambda samples: 1, seed=0)) == 1
    warnings = capsys.readouterr().err
    assert "1 video with fewer than 3 frames with masks left out, the first: v1" in warnings
    assert f"2 masks without a frame left out, the first: {masks / 'v1/00002.png'}" in warnings
    for path in (images / "v0").glob("0000[12].jpg"):
        path.unlink()
    with pytest.raises(InputError, match="no video with three frames"):
        video_pairs(images, masks)
    with pytest.raises(InputError, match="no such folder"):
        video_pairs(Path("/nowhere"), masks)


def test_frames_and_masks_of_different_sizes_are_named(tmp_path):
    root = video_root(tmp_path, videos=1, frames=3)
    Image.new("L", (10, 10), 1).save(root / "BL30K/Annotations/v0/00001.png")
    data = bl30k_stage(root / "BL30K", lambda samples: 1, seed=0, size=32)
    failures = [str(sample) for sample in (data[(epoch, 0)] for epoch in range(5)) if isinstance(sample, InputError)]
    assert failures
    assert re.search(r"00001\.png: 10x10 pixels, but 0000\d\.jpg has 160x120", failures[0])


def test_one_bad_file_costs_one_sample_not_the_training(tmp_path):
    root = video_root(tmp_path, videos=2, frames=3)
    frame = root / "BL30K/JPEGImages/v0/00000.jpg"
    frame.write_bytes(frame.read_bytes()[:400])
    data = bl30k_stage(root / "BL30K", lambda samples: 1, seed=0, size=64)
    samples = [data[(epoch, 0)] for epoch in range(12)]
    skipped = [message for sample in samples for message in sample["skipped"]]
    assert skipped
    assert all("v0/00000.jpg: cannot be read" in message for message in skipped)


def test_a_video_without_any_object_is_replaced(tmp_path):
    root = video_root(tmp_path, videos=2, frames=3)
    for path in (root / "BL30K/Annotations/v0").iterdir():
        Image.new("L", (160, 120)).save(path)
    data = bl30k_stage(root / "BL30K", lambda samples: 1, seed=0, size=64)
    sample = data[(0, 0)]
    assert sample["skipped"] == [f"{root}/BL30K/Annotations/v0: no object in these masks"]
    assert sample["masks"].any()


def test_videos_that_are_not_there_are_left_out(tmp_path, capsys):
    root = video_root(tmp_path, videos=2, frames=3)
    (root / "BL30K/Annotations/v2").mkdir()
    assert len(bl30k_stage(root / "BL30K", lambda samples: 1, seed=0)) == 2
    warning = f"1 video left out, the first: {root}/BL30K/JPEGImages/v2: no such folder"
    assert warning in capsys.readouterr().err


def test_distances_never_shrink_to_nothing(tmp_path):
    root = video_root(tmp_path, videos=1, frames=3)
    data = video_stage(root / "DAVIS", root / "YouTube", lambda samples: 1, seed=0, size=64, length=5, max_distance=1)
    assert all(data[(epoch, index)]["frames"].shape == (5, 3, 64, 64) for epoch in range(5) for index in range(6))


@pytest.mark.parametrize("value", [1, 2, 38, 255])
def test_static_masks_of_labels_count_as_objects(tmp_path, value):
    folder = tmp_path / "ecssd"
    folder.mkdir()
    Image.new("RGB", (64, 64), "green").save(folder / "x.jpg")
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = value
    Image.fromarray(mask).save(folder / "x.png")
    sample = static_stage(tmp_path, seed=0, size=64)[(0, 0)]
    assert sample["skipped"] == []
    assert sample["masks"].max() == 1
