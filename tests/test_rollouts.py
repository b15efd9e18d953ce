"""Rollouts: how they are made, sampled and disturbed, and training with predicted masks in memory."""
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import ROOT, command
from PIL import Image
from test_train_script import LITE, train  # noqa: F401
from test_training_data import video_root

import dataset.rollouts as rollouts
import scripts.make_rollouts
from dataset.image_io import read_mask
from dataset.sampling import ROLLOUT_MEMORY, sample_rollout, shortest_rollout
from dataset.stages import davis_training_videos
from model.model import Trainer, TrainingForward
from model.variants import lite_network
from util.cli import InputError
from util.hyper_para import parse


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Videos of twelve frames."""
    return video_root(tmp_path_factory.mktemp("data"), frames=12)


@pytest.fixture(scope="module")
def videos(data):
    return davis_training_videos(data / "DAVIS")


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """Rollouts by lite at a small size."""
    folder = tmp_path_factory.mktemp("rollouts")
    subprocess.run(make_rollouts(folder, data), cwd=ROOT, check=True)
    return folder


def make_rollouts(folder, data):
    """The command line of the script."""
    return command("scripts/make_rollouts.py", folder, "--davis_root", data / "DAVIS", "--model", "lite", "--size", 64,
                   "--device", "cpu")


@pytest.fixture
def make(monkeypatch, capsys):
    """Runs the script in this process and returns its exit code and standard error."""
    def run(folder, data):
        monkeypatch.setattr(sys, "argv", make_rollouts(folder, data)[2:])
        return scripts.make_rollouts.main(), capsys.readouterr().err
    return run


def copy_masks(videos, folder, passes=("forward", "backward")):
    """Rollouts that are the ground truth."""
    for video in videos:
        for name in passes:
            target = folder / name / video[0][0].parent.name
            target.mkdir(parents=True)
            for _, mask in video:
                (target / mask.name).write_bytes(mask.read_bytes())
    return folder


@pytest.mark.slow
def test_rollouts_start_from_the_first_and_from_the_last_mask(data, videos, made, make):
    for video in videos:
        name = video[0][0].parent.name
        for direction, start in (("forward", 0), ("backward", -1)):
            masks = sorted((made / direction / name).iterdir())
            assert [path.name for path in masks] == [mask.name for _, mask in video]
            truth, predicted = read_mask(video[start][1]), read_mask(masks[start])
            assert (predicted == truth).mean() > 0.98                  # but for edges, at 64 pixels
            assert (predicted == 1).sum() > 0.8 * (truth == 1).sum()
    times = {path: path.stat().st_mtime_ns for path in made.rglob("*.png")}
    assert make(made, data)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.png")} == times


@pytest.mark.slow
def test_an_unfinished_video_is_made_again_and_a_missing_folder_named(data, made, make, tmp_path):
    folder = shutil.copytree(made, tmp_path / "copy")
    removed = folder / "backward/v1"
    for path in removed.iterdir():
        path.unlink()
    removed.rmdir()
    assert make(folder, data)[0] == 0
    for path in (made / "backward/v1").iterdir():
        assert (removed / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match=r"train\.txt: no such file"):
        make(tmp_path / "other", tmp_path)


@pytest.mark.slow
def test_a_frame_of_another_size_is_named(make, tmp_path):
    root = video_root(tmp_path)
    frame = sorted((root / "DAVIS/2017/trainval/JPEGImages/480p/v0").iterdir())[2]
    Image.open(frame).resize((80, 80)).save(frame)
    code, errors = make(tmp_path / "rollouts", root)
    assert code == 2
    assert f"error: {frame}: frame of 64x64 pixels: the frames before it have another size" in errors
    assert [path.name for path in (tmp_path / "rollouts/forward").iterdir()] == ["v1"]       # the others continue
    for mask in (root / "DAVIS/2017/trainval/Annotations/480p/v1").iterdir():
        Image.new("L", (160, 120)).save(mask)
    code, errors = make(tmp_path / "others", root)
    assert code == 2
    assert "v1: no object in these masks" in errors
    assert not list((tmp_path / "others/backward").iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_memory_frames_precede_what_is_segmented(count):
    generator, first_memory = random.Random(count), set()
    for frames in (shortest_rollout(count), 20, 90):
        for _ in range(300):
            chosen = sample_rollout(frames, generator.randint, count)
            start, *memory = chosen[:1 + ROLLOUT_MEMORY]
            segmented = chosen[1 + ROLLOUT_MEMORY:]
            assert start == 0
            assert len(segmented) == count
            assert memory == sorted(memory)
            assert memory[0] >= 1
            assert 1 <= segmented[0] - memory[-1] <= 3
            assert all(1 <= later - earlier <= 3 for earlier, later in zip(segmented, segmented[1:], strict=False))
            assert segmented[-1] < frames
            first_memory.add(memory[0])
    assert {1, 2, 40} <= first_memory


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_samples_take_their_memory_from_a_rollout(videos, tmp_path, monkeypatch, direction):
    monkeypatch.setattr(rollouts, "ROLLOUT_SHARE", 1)
    monkeypatch.setattr(rollouts, "CUT_SHARE", 0)
    monkeypatch.setattr(rollouts, "ADD_SHARE", 0)
    loaded = []
    load = rollouts.RolloutDataset._load
    monkeypatch.setattr(rollouts.RolloutDataset, "_load", lambda self, files: loaded.append(files) or load(self, files))
    data = rollouts.RolloutDataset(videos, lambda epoch: 5, copy_masks(videos, tmp_path, [direction]), size=96,
                                   length=5)
    for seed in range(8):
        torch.manual_seed(seed)
        sample = data.sample(seed % 2, 0)
        assert sample["frames"].shape == (1 + ROLLOUT_MEMORY + 2, 3, 96, 96)
        assert sample["predicted"].shape == (ROLLOUT_MEMORY, 2, 96, 96)
        for k in range(2):                          # the same augmentation as the ground truth, which these masks are
            assert torch.equal(sample["predicted"][:, k] == 1, sample["target"][1:1 + ROLLOUT_MEMORY] == k + 1)
        first, *others = (int(frame.stem) for frame, _, _ in loaded[-1])
        assert first == (0 if direction == "forward" else 11)
        assert all((other > first) == (direction == "forward") for other in others)
        assert all(f"{direction}/{frame.parent.name}/{mask.name}" in predicted.as_posix() and mask.stem == frame.stem
                   for frame, mask, predicted in loaded[-1])


@pytest.mark.parametrize("reason", ["short", "missing"])
def test_some_samples_have_no_rollout_and_some_videos_never(videos, tmp_path, capsys, reason):
    if reason == "short":           # two frames to segment need a video of eight
        videos = [videos[0], videos[1][:7]]
    folder = copy_masks(videos[:1] if reason == "missing" else videos, tmp_path)
    data = rollouts.RolloutDataset(videos, lambda epoch: 5, folder, size=32, length=5)
    message = " ".join(capsys.readouterr().err.split())
    assert f"{folder}: 1 video without a rollout of at least 8 frames, the first: " in message
    assert message.endswith("v1")
    torch.manual_seed(0)
    kinds = ["predicted" in data.sample(0, 0) for _ in range(60)]
    assert 0.5 < np.mean(kinds) < 0.9
    assert not any("predicted" in data.sample(1, 0) for _ in range(10))


def test_a_folder_without_rollouts_is_refused(videos, tmp_path):
    with pytest.raises(InputError, match=r"no rollouts of these videos with at least 5 frames; make them with"):
        rollouts.RolloutDataset(videos, lambda epoch: 5, tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        rollouts.RolloutDataset(videos, lambda epoch: 5, tmp_path / "nowhere")


def test_objects_do_not_overlap_in_memory(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts, "ROLLOUT_SHARE", 1)
    monkeypatch.setattr(rollouts, "CUT_SHARE", 0)
    monkeypatch.setattr(rollouts, "ADD_SHARE", 1)
    data = rollouts.RolloutDataset(videos, lambda epoch: 5, copy_masks(videos, tmp_path), size=96)
    for seed in range(30):
        torch.manual_seed(seed)
        assert data.sample(seed % 2, 0)["predicted"].sum(1).max() <= 1


def moving_disc():
    """Masks (3, 96, 128) of a disc that moves to the right."""
    y, x = np.mgrid[:96, :128]
    return torch.from_numpy(np.stack([(y - 40) ** 2 + (x - 40 - 8 * t) ** 2 < 400 for t in range(3)]))


def test_parts_are_removed_from_the_object_in_the_same_places():
    truth, shares, holes = moving_disc(), [], 0
    for seed in range(40):
        torch.manual_seed(seed)
        masks = rollouts.remove_part(truth, truth)
        assert not (masks & ~truth).any()
        removed = truth & ~masks
        assert removed.flatten(1).any(1).all()
        shares.append(float(removed.sum() / truth.sum()))
        moved = torch.stack([removed[t].roll(-8 * t, 1) for t in range(3)])
        assert (moved[1:] != moved[:1]).float().mean() < 0.01
        holes += bool((removed[0].float().mean() > 0) and masks[0, 40, 22] and masks[0, 40, 58] and masks[0, 22, 40]
                      and masks[0, 58, 40])
    assert 0 < min(shares) < 0.2 < max(shares) <= 0.75
    assert 0 < holes < 40                           # else a line cuts the object
    absent = torch.zeros_like(truth)
    assert not rollouts.remove_part(absent, absent).any()


@pytest.mark.parametrize("add", [rollouts.add_copy, rollouts.add_spots])
def test_false_parts_are_added_outside_of_the_object(add):
    truth, added = moving_disc(), []
    for seed in range(40):
        torch.manual_seed(seed)
        masks = add(truth, truth)
        assert (masks & truth).sum() == truth.sum()
        added.append(int((masks & ~truth).sum()))
    assert np.mean(np.array(added) > 0) > 0.5       # some are outside of the frame, or inside of the object
    assert max(added) <= truth.sum()


def test_there_are_no_copies_of_an_absent_object_but_there_can_be_spots():
    absent = torch.zeros_like(moving_disc())
    assert not rollouts.add_copy(absent, absent).any()
    spots = rollouts.add_spots(absent, absent)
    assert spots.any()
    assert (spots == spots[:1]).all()


def test_few_masks_are_disturbed():
    truth = moving_disc()
    torch.manual_seed(0)
    results = [rollouts.disturb(truth, truth) for _ in range(400)]
    smaller = np.mean([bool((truth & ~masks).any()) for masks in results])
    larger = np.mean([bool((masks & ~truth).any()) for masks in results])
    assert 0.06 < smaller < 0.14
    assert 0.15 < larger < 0.3


def test_predicted_masks_replace_what_would_be_predicted():
    """Given what the network itself predicts for the first frames, the others are predicted as before."""
    torch.manual_seed(0)
    network = lite_network().eval()
    forward = TrainingForward(network, kernel_sigma=7)
    frames, selector = torch.randn(1, 5, 3, 64, 64), torch.ones(1, 2)
    masks = torch.zeros(1, 2, 64, 64)
    masks[:, 0, 8:30, 8:30], masks[:, 1, 30:50, 20:60] = 1, 1
    with torch.no_grad():
        all_ = forward(frames, masks, selector)
        predicted = torch.stack([prediction.probabilities for prediction in all_[:2]], 1)
        others = forward(frames, masks, selector, predicted)
        assert len(others) == 2
        for one, other in zip(all_[2:], others, strict=True):
            torch.testing.assert_close(one.logits, other.logits)
        changed = forward(frames, masks, selector, 1 - predicted)
        assert not torch.allclose(others[0].logits, changed[0].logits)


def test_only_segmented_frames_have_a_loss():
    torch.manual_seed(0)
    trainer = Trainer(lite_network(), 1e-4, [], 0.1)
    masks = torch.zeros(1, 2, 32, 32)
    masks[:, 0, 8:24, 8:24] = 1
    batch = {"frames": torch.randn(1, 5, 3, 32, 32), "masks": masks, "selector": torch.tensor([[1., 0]]),
             "target": masks[:, :1].long().expand(-1, 5, -1, -1).clone(),
             "predicted": masks[:, None].expand(-1, 3, -1, -1, -1)}
    metrics, predictions = trainer.step(batch, 0)
    assert {name for name in metrics if name != "overlap"} == {"loss_4"}
    assert len(predictions) == 1
    batch["target"][:, 1:4] = 0                     # not segmented, so the ground truth does not matter
    torch.manual_seed(0)
    other, _ = Trainer(lite_network(), 1e-4, [], 0.1).step({**batch, "frames": batch["frames"]}, 0)
    assert torch.equal(metrics["loss_4"], other["loss_4"])


@pytest.mark.slow
def test_training_with_rollouts(train, data, videos, made, tmp_path):  # noqa: F811
    out = train(*LITE, "--id", "r", "--stage", 2, "-i", 4, "--frames", 5, "--rollouts", made, "--davis_root",
                data / "DAVIS", "--debug").out
    assert {"loss_1", "loss_4"} <= {line.split("[")[2].split("]")[0] for line in out.splitlines() if "[TRAIN]" in line}
    train(*LITE, "--id", "s", "--stage", 2, "-i", 1, "--frames", 5, "--rollouts", made, "--davis_root", data / "DAVIS")
    resumed = train(*LITE, "--stage", 2, "-i", 2, "--frames", 5, "--davis_root", data / "DAVIS", "--load_model",
                    next(tmp_path.glob("saves/*_s/*_checkpoint.pth"))).err
    assert "was saved with rollouts True and resumes with False" in " ".join(resumed.split())
    with pytest.raises(InputError, match="no rollouts of these videos"):
        train(*LITE, "--stage", 2, "-i", 1, "--rollouts", tmp_path, "--davis_root", data / "DAVIS")


@pytest.mark.parametrize("arguments", [["--stage", "2", "-b", "2"], ["--stage", "2"], ["-b", "1"]])
def test_rollouts_need_batches_of_one_sample(capsys, arguments):
    with pytest.raises(SystemExit):
        parse([*arguments, "--rollouts", "r"])
    assert "--rollouts: needs --stage 2 and --batch_size 1" in capsys.readouterr().err
