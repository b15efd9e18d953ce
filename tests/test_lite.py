"""The lite network: its parts, the weights that come with the code, and what they find."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataset.image_io import read_mask
from dataset.synthetic import texture, write_clip
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference.propagation import preprocess_frame
from inference.scoring import score
from inference_core import InferenceCore, _ObjectGroup
from model import efficientnet
from model.checkpoint import load_network
from model.defaults import INFERENCE_DEFAULTS, LITE_WEIGHTS
from model.efficientnet import EPSILON, DeepFeatures, EfficientNetLite, InvertedResidual, load_folded
from model.memory_bank import MemoryBank
from model.pretrained import start_from_imagenet
from model.variants import lite_network, published_network
from util.cli import InputError
from util.normalization import IMAGENET_MEAN, IMAGENET_STD

ROOT = Path(__file__).resolve().parents[1]


def batch_normalised_weights(encoder):
    """Weights as ImageNet's come, with batch normalisation after every convolution, and a few layers more."""
    torch.manual_seed(0)
    weights = {}
    for index, conv in enumerate(module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d)):
        width = conv.out_channels
        weights |= {f"{index}.conv": torch.randn_like(conv.weight) * (2 / conv.weight[0].numel()) ** 0.5,
                    f"{index}.gamma": torch.rand(width) + 0.5, f"{index}.beta": torch.randn(width) * 0.1,
                    f"{index}.mean": torch.randn(width) * 0.1, f"{index}.variance": torch.rand(width) + 0.5,
                    f"{index}.num_batches_tracked": torch.tensor(1)}
    return {**weights, "head": torch.randn(1280, 352, 1, 1)}


def test_folding_changes_what_is_computed_no_more_than_rounding():
    encoder = EfficientNetLite().eval()
    weights = batch_normalised_weights(encoder)
    load_folded([encoder], weights)
    pixels = torch.rand(1, 3, 72, 104)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    def layer(index, x, stride=1, groups=1):
        weight, *norm = (weights[f"{index}.{name}"] for name in ("conv", "mean", "variance", "gamma", "beta"))
        kernel = weight.shape[-1]
        x = F.pad(x, ((kernel - stride) // 2, (kernel - stride + 1) // 2) * 2)
        return F.batch_norm(F.conv2d(x, weight, stride=stride, groups=groups), *norm, eps=EPSILON)

    # By hand up to stride 4; the first layer's border sees another zero, which reaches a few pixels inwards.
    x = F.relu6(layer(0, (255 * pixels - 127) / 128, 2))
    x = layer(2, F.relu6(layer(1, x, groups=32)))
    x = layer(5, F.relu6(layer(4, F.relu6(layer(3, x)), 2, groups=96)))
    for first in (6, 9):
        x = x + layer(first + 2, F.relu6(layer(first + 1, F.relu6(layer(first, x)), groups=144)))
    _, _, f4 = encoder((pixels - mean) / std)
    torch.testing.assert_close(f4[..., 4:-4, 4:-4], x[..., 4:-4, 4:-4], atol=1e-4, rtol=1e-4)


def test_features_halve_and_halve_again():
    shapes = [tuple(feature.shape) for feature in EfficientNetLite()(torch.zeros(2, 3, 48, 80))]
    assert shapes == [(2, 120, 3, 5), (2, 48, 6, 10), (2, 24, 12, 20)]


def test_imagenet_weights_continue_in_the_deep_stages(tmp_path):
    network = lite_network()
    parts = torch.nn.ModuleList([network.rgb_encoder, network.kv_q_f16.deep.stages])
    weights = batch_normalised_weights(parts)
    torch.save(weights, tmp_path / "x.pth")
    start_from_imagenet(network, tmp_path / "x.pth")
    convolutions = [module for module in parts.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 63                        # all of EfficientNet-Lite2 but its head
    last = len(convolutions) - 1
    scale = weights[f"{last}.gamma"] / (weights[f"{last}.variance"] + EPSILON).sqrt()
    torch.testing.assert_close(convolutions[last].weight, weights[f"{last}.conv"] * scale[:, None, None, None])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (5, 7), (4, 7)])
def test_deep_features_have_any_size(height, width):
    torch.manual_seed(0)
    deep, f16 = DeepFeatures(120), torch.randn(1, 120, height, width)
    even = F.pad(f16, (0, width % 2, 0, height % 2), mode="replicate")
    assert deep.stages(even).shape == (1, 352, (height + 1) // 2, (width + 1) // 2)
    torch.testing.assert_close(deep(f16), deep(even)[..., :height, :width], rtol=1e-4, atol=1e-5)
    assert (deep(f16) != f16).all()


def test_gradients_in_bfloat16_are_those_of_float32():
    torch.manual_seed(0)
    block, x = InvertedResidual(16, 16, 6, 5, 1), torch.rand(1, 16, 20, 20)
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = block(x)
        gradient, = torch.autograd.grad(out.float().square().sum(), block.depthwise.weight)
        assert gradient.dtype == torch.float32
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05 * float(gradients[0].abs().max()))


def test_training_computes_what_inference_does():
    """With gradients, other paths are taken: a padded copy before 3x3 filters, and frames in one batch."""
    network = lite_network()
    frames = torch.randn(6, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [network.encode_query(frame) for frame in frames.split(2)]
    for query, found in zip(expected, network.encode_query(frames).chunk(3), strict=True):
        assert found.key.requires_grad
        torch.testing.assert_close(found, query, rtol=1e-4, atol=1e-4)


def test_other_networks_weights_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="x.pth: convolution 0 is not EfficientNet-Lite2's"):
        start_from_imagenet(lite_network(), tmp_path / "x.pth")


def test_values_carry_the_masks_and_keys_do_not_depend_on_them():
    network = lite_network().eval()
    masks = torch.zeros(1, 2, 32, 48)
    masks[0, 0, :16, :16], masks[0, 1, 16:, 20:24] = 1, 1
    frame = torch.randn(1, 3, 32, 48)
    key, value = network.memorize(frame, masks)
    assert torch.equal(key[:, 0], network.encode_query(frame).key)
    cells = F.pixel_shuffle(value[0, :, -32:], 4)                     # (K, 2, H/4, W/4): the object, the others
    assert torch.equal(cells[:, 0], F.avg_pool2d(masks[0], 4))
    assert torch.equal(cells[:, 1], cells[[1, 0], 0])


def test_objects_remembered_together_are_found_as_if_each_were_alone(monkeypatch):
    """Keys are shared, memory banks are per frame of appearance; neither may show in the masks."""
    frames = torch.randn(5, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    first, late = torch.zeros(64, 96, dtype=torch.long), torch.zeros(64, 96, dtype=torch.long)
    first[:20, :30], first[30:50, 10:40], late[20:60, 60:90] = 4, 2, 7
    network, results = load_network(LITE_WEIGHTS), []
    encoded = []
    encode = network.rgb_encoder.forward
    monkeypatch.setattr(network.rgb_encoder, "forward", lambda image: encoded.append(0) or encode(image))
    for together in (True, False):
        core = InferenceCore(network, top_k=16, mem_every=2)
        steps = []
        for t, frame in enumerate(frames):
            steps.append(core.step(frame, {0: first, 2: late}.get(t)))
            if not together:
                for group in core._groups[:]:
                    if group.size > 1:                # each a bank of its own, before anything is remembered
                        core._groups.remove(group)
                        core._groups += [_ObjectGroup(1, MemoryBank()) for _ in range(group.size)]
        assert [group.size for group in core._groups] == ([2, 1] if together else [1, 1, 1])
        results.append(torch.cat(steps))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
    assert len(encoded) == 2 * len(frames)          # once a frame, as query and for the memory


@pytest.mark.slow
def test_the_weights_say_which_network_they_are_of(tmp_path):
    for network in (lite_network(), published_network()):
        torch.save(network.state_dict(), tmp_path / "some.pth")
        assert load_network(tmp_path / "some.pth").variant == network.variant


def test_the_shipped_weights_are_small_and_whole():
    state = torch.load(LITE_WEIGHTS, weights_only=True)
    assert LITE_WEIGHTS.stat().st_size < 20e6
    assert {value.dtype for value in state.values()} == {torch.float16}
    network = load_network(LITE_WEIGHTS)
    assert network.variant == "lite"
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder, frames=16, height=240, width=426, objects=3, seed=5)
    return folder


@pytest.mark.slow
def test_it_finds_the_objects_of_a_drawn_clip(clip, tmp_path):
    """The whole road, from a newcomer's command to a score, with weights that mean something."""
    run = subprocess.run([sys.executable, ROOT / "propagate.py", "--images", clip / "frames", "--masks",
                          clip / "masks/00000.png", "--output", tmp_path / "drawn", "--size", "240"],
                         cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    frames = ImageFrames(sorted((clip / "frames").iterdir()))
    video = Video("drawn", frames, {0: clip / "masks/00000.png"}, clip / "masks")
    scores = score([video], tmp_path, 1)
    assert [row.label for row in scores] == [1, 2, 3]
    assert np.mean([(row.j + row.f) / 2 for row in scores]) > 80, scores


def test_objects_of_a_kind_keep_their_identities():
    """Two discs of one colour, each with a pattern of its own, move side by side."""
    rng = np.random.default_rng(0)
    ground = texture(rng, 240, 432, np.array([90, 110, 70]))
    skins = [texture(rng, 81, 81, np.array([200, 60, 60])) for _ in range(2)]
    y, x = np.mgrid[-40:41, -40:41]
    disc = x ** 2 + y ** 2 <= 1600
    defaults = INFERENCE_DEFAULTS["lite"]
    core = InferenceCore(load_network(LITE_WEIGHTS), defaults.top_k, defaults.kernel_sigma, defaults.mem_every)
    for step in range(6):
        frame, mask = ground.copy(), np.zeros((240, 432), np.int64)
        for label, left in ((1, 40 + 6 * step), (2, 220 + 6 * step)):
            frame[80:161, left:left + 81][disc] = skins[label - 1][disc]
            mask[80:161, left:left + 81][disc] = label
        image = preprocess_frame(frame.astype(np.uint8), core.device, mask.shape)
        found = core.step(image, torch.from_numpy(mask) if step == 0 else None).argmax(0).numpy()
    for label in (1, 2):
        assert ((found == label) & (mask == 3 - label)).sum() < 0.1 * disc.sum()
        assert ((found == label) & (mask == label)).sum() > 0.8 * ((found == label) | (mask == label)).sum()


@pytest.mark.slow
def test_published_weights_in_saves_come_first(clip, weights, tmp_path):
    (tmp_path / "frames").mkdir()
    for index in range(2):
        shutil.copy(clip / f"frames/{index:05d}.jpg", tmp_path / "frames")
    sizes = {}
    for name in ("lite", "published"):
        if name == "published":
            (tmp_path / "saves").mkdir()
            (tmp_path / "saves/propagation_model.pth").symlink_to(weights)
        run = subprocess.run([sys.executable, ROOT / "propagate.py", "--images", "frames", "--masks",
                              clip / "masks/00000.png", "--output", name, "--size", "96"], cwd=tmp_path,
                             capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        sizes[name] = read_mask(tmp_path / name / "00001.png").shape
        assert re.search(rf"^network: {name}", run.stdout, re.M), run.stdout
    assert sizes == {"lite": (240, 426), "published": (240, 426)}


@pytest.mark.parametrize("height", [2, 9, 16, 17])
@pytest.mark.parametrize(("rows", "together"), [(1, 2), (4, 4), (7, 6), (1000, 1000)])
def test_a_layer_in_stripes_gives_the_same(height, rows, together, monkeypatch):
    layer = efficientnet.InvertedResidual(16, 24, expansion=6, kernel=3, stride=2)
    x = torch.randn(2, 16, height, 12)
    with torch.inference_mode():
        whole = layer(x)
        monkeypatch.setattr(efficientnet, "WIDE", 0)
        monkeypatch.setattr(efficientnet, "STRIPE", rows * 2 * 96 * 12)
        seen, convolve = [], layer._convolve
        monkeypatch.setattr(layer, "_convolve", lambda stripe: seen.append(stripe.shape[2]) or convolve(stripe))
        torch.testing.assert_close(layer(x), whole)
    assert len(seen) == max(1, -(-(height - 1) // together))
    assert max(seen) <= together + 1
