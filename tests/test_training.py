"""Training: the published numbers, the schedules, the step, checkpoints and the log."""
import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import needs_dev_full
from golden_weights import fill_weights

from dataset.sampling import batch_schedule, max_frame_distance, sample_frames
from inference_core import InferenceCore
from model.checkpoint import load_network, read_network
from model.defaults import LITE_WEIGHTS
from model.losses import bootstrapped_cross_entropy, hard_pixel_ratio
from model.model import Trainer, TrainingForward
from model.pretrained import start_from_imagenet, start_from_network, widen
from model.variants import lite_network, published_network
from util.cli import InputError
from util.hyper_para import parse
from util.logger import Logger, describe_commit
from util.normalization import normalize

GOLDEN = Path(__file__).parent / "golden"
LOSSES = json.loads((GOLDEN / "train_losses.json").read_text())


def golden_batch(case):
    golden, objects = np.load(GOLDEN / f"train_{case}.npz"), 1 if case == "single_object" else 2
    target = torch.from_numpy(golden["labels"]).long()
    return golden, {
        "frames": normalize(torch.from_numpy(golden["frames"]).permute(0, 1, 4, 2, 3)),
        "masks": torch.stack([(target[:, 0] == k + 1).float() for k in range(objects)], 1),
        "target": target,
        "selector": torch.ones(2, 1) if objects == 1 else torch.from_numpy(golden["selector"])}


@pytest.fixture(scope="module")
def filled():
    """The published networks with the golden weights, which take long to fill."""
    return {case: fill_weights(published_network(single_object=case == "single_object"))
            for case in ("single_object", "two_objects")}


@pytest.mark.slow
@pytest.mark.parametrize("iteration", [0, 45_000, 80_000])
@pytest.mark.parametrize("case", ["single_object", "two_objects"])
def test_logits_losses_and_gradients_are_the_published_ones(filled, case, iteration):
    golden, batch = golden_batch(case)
    trainer = Trainer(copy.deepcopy(filled[case]), lr=1e-5, steps=[250_000], gamma=0.1)
    parameters = dict(trainer.network.named_parameters())
    for step, tolerance in ((0, 1e-5), (1, 2e-3))[:2 if iteration == 0 else 1]:
        expected = LOSSES[f"{case}_it{iteration}_step{step}"]
        metrics, predictions = trainer.step(batch, iteration)
        assert hard_pixel_ratio(iteration) == pytest.approx(expected["p"])
        assert float(metrics["loss_1"] + metrics["loss_2"]) == pytest.approx(expected["total_loss"], rel=tolerance)
        intersection, union = metrics["overlap"][0].tolist()
        assert (intersection + 1) / (union + 1) == pytest.approx(expected["iou"], rel=5e-3)
        for name, norm in expected["grad_norm"].items():
            assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=5e-3), name
        if step == 0:
            for prediction, name in zip(predictions, ("logits_1", "logits_2"), strict=True):
                assert np.abs(prediction.logits[:, :, ::2, ::2].detach().numpy() - golden[name]).max() < 1e-3


def test_the_loss_takes_the_hardest_pixels_of_each_image():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 10, 10, generator=generator)
    target = torch.randint(0, 2, (2, 10, 10), generator=generator)
    selector = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    each = [-logits[0].log_softmax(0).gather(0, target[:1]), -logits[1, :2].log_softmax(0).gather(0, target[1:])]
    for iteration, share in ((0, 1), (19_999, 1), (20_000, 1), (45_000, 0.575), (70_000, 0.15), (10 ** 6, 0.15)):
        expected = np.mean([np.sort(loss.flatten().numpy())[::-1][:int(share * 100)].mean() for loss in each])
        found = bootstrapped_cross_entropy(logits, target, selector, iteration)
        assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_loss_does_not_depend_on_which_object_is_missing():
    logits, target = torch.randn(1, 3, 8, 8), torch.randint(0, 2, (1, 8, 8))
    last = bootstrapped_cross_entropy(logits, target, torch.tensor([[1.0, 0.0]]), 0)
    first = bootstrapped_cross_entropy(logits[:, [0, 2, 1]], 2 * target, torch.tensor([[0.0, 1.0]]), 0)
    torch.testing.assert_close(first, last)


@pytest.mark.parametrize(("epochs", "last", "changes"), [
    (320, 0.9, {0: 5, 32: 10, 64: 15, 96: 20, 128: 25, 288: 5}),
    (100, 0.8, {0: 5, 10: 10, 20: 15, 30: 20, 40: 25, 80: 5}),
    (7, 0.9, {0: 5, 1: 15, 2: 20, 3: 25, 6: 5}),      # round(0.7) = round(1.4) = 1
])
def test_frame_distances_change_when_the_spec_says(epochs, last, changes):
    expected = None
    for epoch in range(epochs):
        expected = changes.get(epoch, expected)
        assert max_frame_distance(epoch, epochs, last) == expected, epoch
        assert max_frame_distance(epoch, epochs, last, files_every=5) == expected // 5
        assert max_frame_distance(epoch, epochs, last, limit=12) == min(expected, 12)
        assert max_frame_distance(epoch, epochs, last, files_every=5, limit=12) == min(expected, 12) // 5


def test_what_starts_from_imagenet_weights_has_the_learning_rate_of_the_encoder():
    network = lite_network()
    trainer = Trainer(network, 1e-3, [5], 0.1, encoder_lr=0.1)
    rates = {id(parameter): group["lr"] for group in trainer.optimizer.param_groups for parameter in group["params"]}
    encoder = {name for name, parameter in network.named_parameters() if rates[id(parameter)] == 1e-4}
    assert len(rates) == len(list(network.parameters()))
    assert encoder == {name for name in network.state_dict() if ".stages." in name or ".stem." in name}


@pytest.mark.parametrize(("stage", "batch", "iterations", "decay"), [
    (0, 7, 300_000, 250_000), (1, 4, 500_000, 450_000), (2, 4, 150_000, 125_000)])
def test_stages_have_the_published_defaults(stage, batch, iterations, decay):
    args = parse(["--stage", str(stage)])
    assert (args.batch_size, args.iterations, args.steps) == (batch, iterations, [decay])
    assert (args.lr, args.gamma) == (1e-5, 0.1)
    assert (args.seed, args.id, args.amp, args.ema, args.kernel_sigma) == (14159265, "NULL", None, None, None)
    trainer = Trainer(torch.nn.Linear(1, 1), args.lr, [3, 5], args.gamma)
    rates = []
    for _ in range(7):
        rates.append(trainer.scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.scheduler.step()
    assert rates == pytest.approx([1e-5] * 3 + [1e-6] * 2 + [1e-7] * 2)


def test_frames_are_sampled_within_their_bounds():
    generator = np.random.default_rng(0)
    seen = set()
    for frames in (3, 4, 7, 60):
        for distance in (1, 5, 25):
            reach = min(frames, distance)
            for _ in range(300):
                chosen = sample_frames(frames, distance, lambda low, high: int(generator.integers(low, high + 1)))
                assert len(chosen) == 3
                assert all(0 <= place < frames for place in chosen)
                ordered = chosen if chosen == sorted(chosen) else chosen[::-1]
                assert ordered == sorted(chosen)
                assert max(np.diff(ordered)) <= reach + 1
                seen.add(tuple(chosen))
    assert (0, 1, 2) in seen
    assert (2, 1, 0) in seen


def test_sampling_follows_the_formula_draw_by_draw():
    # n = 10, J = 4: start in [0, 6]; f1 = min(start + [1, 5], 6, 9); f2 = min(f1 + [1, 5], 8, 9).
    asked = []

    def highest(low, high):
        asked.append((low, high))
        return high
    assert sample_frames(10, 4, highest) == [8, 6, 6]
    assert asked == [(0, 6), (1, 5), (1, 5), (0, 1)]
    assert sample_frames(10, 4, lambda low, high: low) == [0, 1, 2]


@pytest.mark.parametrize(("frames", "distance", "count"), [(16, 5, 6), (16, 25, 8), (60, 5, 10), (8, 5, 8), (2, 5, 2)])
def test_long_samples_do_not_repeat_frames(frames, distance, count):
    generator = np.random.default_rng(0)
    ends = []
    for _ in range(300):
        chosen = sample_frames(frames, distance, lambda low, high: int(generator.integers(low, high + 1)), count)
        ordered = chosen if chosen[0] < chosen[-1] else chosen[::-1]
        gaps = np.diff(ordered)
        assert len(chosen) == count
        assert 1 <= min(gaps) <= max(gaps) <= distance + 1
        assert ordered[0] >= 0
        ends += ordered[0], ordered[-1]
    assert min(ends) == 0
    assert max(ends) == frames - 1


def test_a_video_shorter_than_the_sample_repeats_its_last_frame():
    assert sample_frames(4, 5, lambda low, high: low, count=6) == [0, 1, 2, 3, 3, 3]


def test_processes_share_each_batch_and_resume_where_they_were():
    whole = list(batch_schedule(50, 4, 0, 30, seed=1))
    halves = [list(batch_schedule(50, 2, 0, 30, seed=1, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    assert list(batch_schedule(50, 4, 17, 30, seed=1)) == whole[17:]
    epoch = [index for batch in whole[:12] for _, index in batch]
    assert len(set(epoch)) == 48
    assert [number for batch in whole for number, _ in batch] == [i // 12 for i in range(30) for _ in range(4)]
    assert whole != list(batch_schedule(50, 4, 0, 30, seed=2))
    assert whole[:12] != whole[12:24]


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A ResNet-50 of torchvision with random weights, and their file."""
    from torchvision.models import resnet50
    torch.manual_seed(1)
    network, path = resnet50(weights=None).eval(), tmp_path_factory.mktemp("resnet") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    return network, path


@pytest.mark.slow
def test_encoders_start_from_imagenet_weights(resnet, tmp_path):
    network, weights = published_network(), resnet[0].state_dict()
    start_from_imagenet(network, resnet[1])
    state = network.state_dict()
    assert torch.equal(state["rgb_encoder.layer3.5.bn3.weight"], weights["layer3.5.bn3.weight"])
    assert torch.equal(state["mask_rgb_encoder.layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    assert torch.equal(state["mask_rgb_encoder.conv1.weight"][:, :3], weights["conv1.weight"])
    extra = state["mask_rgb_encoder.conv1.weight"][:, 3:].flatten(1)
    torch.testing.assert_close(extra @ extra.T, torch.eye(64), atol=1e-5, rtol=0)
    biases = [value for name, value in state.items() if name.startswith("mask_rgb_encoder") and name.endswith("bias")
              and ("conv" in name or "downsample.0" in name)]
    assert len(biases) == 1 + 13 * 3 + 3
    assert not any(bias.any() for bias in biases)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        reference = resnet[0]
        stem = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        expected = reference.layer3(reference.layer2(reference.layer1(stem)))
        encoder = network.mask_rgb_encoder
        torch.testing.assert_close(network.rgb_encoder(x)[0], expected)
        torch.testing.assert_close(encoder(encoder.image_part(x), torch.zeros(1, 1, 2, 64, 64)), expected)
    torch.save({"conv1.weight": weights["conv1.weight"]}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x.pth: no bn1.weight, so not the weights of a ResNet-50"):
        start_from_imagenet(network, tmp_path / "x.pth")


@pytest.mark.slow
def test_single_object_weights_gain_a_channel_or_stay_as_they_are(tmp_path):
    torch.manual_seed(0)
    single = published_network(single_object=True).state_dict()
    torch.save(single, tmp_path / "s0.pth")
    for single_object, channels in ((True, 4), (False, 5)):
        network = published_network(single_object)
        start_from_network(network, tmp_path / "s0.pth")
        stem = network.state_dict()["mask_rgb_encoder.conv1.weight"]
        assert stem.shape[1] == channels
        assert torch.equal(stem[:, :4], single["mask_rgb_encoder.conv1.weight"])
        assert torch.equal(network.decoder.pred.weight, single["decoder.pred.weight"])
    extra = widen(torch.zeros(64, 4, 7, 7), 5)[:, 4:].flatten(1)
    assert extra.shape == (64, 49)
    torch.testing.assert_close(extra.T @ extra, torch.eye(49), atol=1e-5, rtol=0)


def sample(frames=3, size=48, objects=2):
    """A random batch of one sample, with objects that are vertical stripes."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(size).expand(1, frames, size, size) * (objects + 1) // size
    return {"frames": torch.randn(1, frames, 3, size, size, generator=generator), "target": target,
            "masks": torch.stack([(target[:, 0] == k + 1).float() for k in range(objects)], 1),
            "selector": torch.ones(1, objects)}


def test_amp_trains_close_to_full_precision():
    losses = {}
    for amp in (None, "bf16"):
        trainer = Trainer(read_network(LITE_WEIGHTS), 1e-5, [10], 0.1, amp)
        metrics, predictions = trainer.step(sample(frames=2, size=32), 0)
        losses[amp] = float(metrics["loss_1"])
        assert predictions[0].logits.dtype == torch.float32
    assert losses["bf16"] == pytest.approx(losses[None], rel=0.1)
    assert losses["bf16"] != losses[None]


@pytest.mark.parametrize(("top_k", "sigma"), [(None, None), (8, None), (8, 2.0), (None, 2.0)])
def test_training_reads_the_memory_as_inference_does(top_k, sigma):
    network, batch = load_network(LITE_WEIGHTS), sample(frames=4)
    with torch.no_grad():
        predictions = TrainingForward(network, top_k, sigma)(*(batch[name] for name in ("frames", "masks", "selector")))
    core = InferenceCore(network, top_k, sigma, mem_every=1)
    core.step(batch["frames"][0, 0], batch["target"][0, 0])
    for frame, prediction in zip(batch["frames"][0, 1:], predictions, strict=True):
        torch.testing.assert_close(prediction.probabilities[0], core.step(frame)[1:], atol=1e-4, rtol=1e-3)


def test_the_average_follows_the_weights_with_a_warm_up():
    network = read_network(LITE_WEIGHTS)
    trainer = Trainer(network, 1e-3, [10], 0.1, ema=0.15)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for iteration in range(3):
        trainer.step(sample(), iteration)
        decay = min(0.15, (1 + iteration) / (10 + iteration))           # 0.1, 0.15, 0.15
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in trainer.average.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert not torch.equal(value, network.state_dict()[name])


def tiny_trainer(ema=None):
    return Trainer(torch.nn.Linear(2, 3), 1e-3, [10], 0.1, ema=ema)


def saved_run(folder, ema=None):
    """A trainer after a step of its optimizer, saved in a folder, and the path of its checkpoint."""
    trainer = tiny_trainer(ema)
    trainer.network(torch.ones(2)).sum().backward()
    trainer.optimizer.step()
    trainer.scheduler.step()
    trainer.save(folder, 1, {"lr": 1e-3})
    return trainer, folder / f"{folder.name}_checkpoint.pth"


def test_the_weights_file_holds_the_average_and_the_checkpoint_everything(tmp_path):
    trainer, checkpoint = saved_run(tmp_path / "x", ema=0.9)
    content, weights = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "x/x_1.pth"))
    assert set(content) == {"it", "network", "optimizer", "scheduler", "scaler", "settings", "average"}
    assert torch.equal(content["network"]["weight"], trainer.network.weight)
    assert torch.equal(content["average"]["weight"], trainer.average.weight)
    assert torch.equal(weights["weight"], trainer.average.weight)
    assert not torch.equal(trainer.average.weight, trainer.network.weight)
    resumed, without, late = tiny_trainer(0.9), tiny_trainer(), tiny_trainer(0.9)
    assert resumed.load(checkpoint) == without.load(checkpoint) == (1, {"lr": 1e-3})
    assert torch.equal(resumed.average.weight, trainer.average.weight)
    _, checkpoint = saved_run(tmp_path / "raw")
    late.load(checkpoint)
    assert torch.equal(late.average.weight, late.network.weight)


def test_there_is_a_checkpoint_at_any_time(tmp_path, monkeypatch):
    trainer, checkpoint = saved_run(tmp_path / "x")
    found, replace = [], os.replace

    def watch(*paths, **folders):
        replace(*paths, **folders)
        found.append(torch.load(checkpoint, weights_only=True)["it"])
    monkeypatch.setattr(os, "replace", watch)
    trainer.save(tmp_path / "x", 2, {})
    assert found == [1, 1, 1, 2]        # after the weights, the new checkpoint, the copy of the old one, the last step
    assert torch.load(tmp_path / "x/x_checkpoint_previous.pth", weights_only=True)["it"] == 1
    assert len(list((tmp_path / "x").iterdir())) == 4


@pytest.mark.parametrize(("damage", "message"), [
    (lambda content: content.update(it="7"), "damaged checkpoint"),
    (lambda content: content.update(it=-1), "damaged checkpoint"),
    (lambda content: content.update(settings=None), "damaged checkpoint"),
    (lambda content: content.update(network="weights"), "holds no network weights"),
    (lambda content: content.update(network={"a": torch.zeros(1)}), "weights of another network"),
    (lambda content: content.update(optimizer={}), "damaged checkpoint"),
    (lambda content: content.update(optimizer=[1]), "damaged checkpoint"),
    (lambda content: content["optimizer"].update(state=3), "damaged checkpoint"),
    (lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), "damaged checkpoint"),
    (lambda content: content["optimizer"]["state"][0].pop("exp_avg_sq"), "damaged checkpoint"),
    (lambda content: content["optimizer"]["param_groups"].append({"params": [1]}), "perhaps because of another"),
    (lambda content: content["optimizer"]["param_groups"][0].update(betas="a"), "damaged checkpoint"),
    (lambda content: content.update(scheduler="x"), "damaged checkpoint"),
    (lambda content: content["scheduler"].update(_last_lr=None), "damaged checkpoint"),
    (lambda content: content["scheduler"].update(last_epoch="a"), "damaged checkpoint"),
    (lambda content: content.pop("it"), "not a training checkpoint"),
])
def test_damaged_checkpoints_are_refused(tmp_path, damage, message):
    _, checkpoint = saved_run(tmp_path / "x")
    content = torch.load(checkpoint, weights_only=True)
    damage(content)
    torch.save(content, checkpoint)
    with pytest.raises(InputError) as error:
        tiny_trainer().load(checkpoint)
    assert str(error.value).startswith(f"{checkpoint}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@needs_dev_full
def test_a_full_disk_keeps_the_last_checkpoint_and_is_named(tmp_path):
    trainer, checkpoint = saved_run(tmp_path / "x")
    before = checkpoint.read_bytes()
    (tmp_path / f"x/.x_checkpoint_new.pth.{os.getpid()}.partial").symlink_to("/dev/full")     # the temporary name
    with pytest.raises(OSError, match="No space left") as error:
        trainer.save(checkpoint.parent, 2, {})
    assert error.value.filename == str(tmp_path / "x/x_checkpoint_new.pth")
    assert checkpoint.read_bytes() == before
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["x_1.pth", "x_2.pth", "x_checkpoint.pth"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer, checkpoint = saved_run(tmp_path / "x")
    trainer.network.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="the weights are not finite at iteration 2"):
        trainer.save(checkpoint.parent, 2, {})
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["x_1.pth", "x_checkpoint.pth"]


def test_commits_are_described_wherever_one_is(tmp_path):
    import git
    assert describe_commit(tmp_path) == "not in a git checkout"
    repository = git.Repo.init(tmp_path, initial_branch="trunk")
    assert describe_commit(tmp_path) == "not in a git checkout"           # nor in one without a commit
    (tmp_path / "a").touch()
    repository.index.add(["a"])
    commit = repository.index.commit("first", author=git.Actor("a", "b"), committer=git.Actor("a", "b"))
    assert describe_commit(tmp_path) == f"trunk {commit.hexsha}"
    (tmp_path / "a").write_text("x")
    assert describe_commit(tmp_path) == f"trunk {commit.hexsha}, with uncommitted changes"
    repository.git.checkout("--detach")
    assert describe_commit(tmp_path).startswith(f"detached HEAD {commit.hexsha}")


def test_tensorboard_has_the_published_tags(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    logger = Logger("x", tmp_path)
    logger.scalars({"total_loss": 1.5, "iou/iou": 0.25, "iou/sec_iou": 0.5}, 100)
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"train/total_loss", "train/iou/iou", "train/iou/sec_iou"}
    assert [(event.step, event.value) for event in events.Scalars("train/iou/iou")] == [(100, 0.25)]
