"""What a frame does on a GPU, as far as it shows without one: tensors that know their device but hold no numbers."""
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference_core import InferenceCore, to_label_map
from model.model import TrainingForward
from model.variants import build
from util.device import allow_tf32

HEIGHT, WIDTH = 96, 107


def has_fake_gpus() -> bool:
    """Whether fake tensors may be on a GPU that this machine lacks; PyTorch 2.6 asks its driver."""
    try:
        with FakeTensorMode():
            return torch.zeros(1).to("cuda").is_cuda
    except (RuntimeError, AssertionError):
        return False


pytestmark = pytest.mark.skipif(not has_fake_gpus(), reason="this PyTorch has no fake GPU tensors here")


class Transfers(TorchDispatchMode):
    """Lists what goes from one device to another. (What the CPU would wait for, fake tensors refuse to do.)"""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)}
        if len(devices) > 1:
            self.seen.append((result.device.type, tuple(result.shape)))
        return result


def on_fake_gpu(network):
    """The network with weights that are nowhere, on the GPU that is not there."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(torch.empty(parameter.shape, device="cuda"), False)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
    return network


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["lite", "published"])
@pytest.mark.parametrize(("top_k", "sigma"), [(16, None), (16, 5.6), (None, None)])
def test_a_frame_is_uploaded_and_nothing_else_crosses_or_waits(variant, top_k, sigma):
    with torch.device("meta"):
        network = build(variant).eval()
    with FakeTensorMode(), torch.inference_mode():
        core = InferenceCore(on_fake_gpu(network), top_k, sigma)
        core.step(torch.randn(3, HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH, dtype=torch.long), input_labels=[1, 2, 7])
        with Transfers() as transfers:
            for _ in range(6):
                probabilities = core.step(torch.randn(3, HEIGHT, WIDTH))
        assert probabilities.device.type == "cuda"
        assert transfers.seen == [("cuda", (3, HEIGHT, WIDTH))] * 6
        with Transfers() as transfers:
            label_map = to_label_map(probabilities, core.labels, (HEIGHT, WIDTH))
        assert label_map.device.type == "cuda"
        assert transfers.seen == [("cuda", (4,))]        # the labels' values


@pytest.mark.parametrize("variant", ["lite", "published"])
def test_a_training_clip_stays_on_the_gpu(variant):
    with torch.device("meta"):
        network = build(variant)
    with FakeTensorMode():
        forward = TrainingForward(on_fake_gpu(network).requires_grad_(True))
        with torch.device("cuda"):
            batch = torch.randn(2, 3, 3, 64, 64), torch.zeros(2, 2, 64, 64), torch.ones(2, 2)
        with Transfers() as transfers:
            predictions = forward(*batch)
        assert [prediction.logits.device.type for prediction in predictions] == ["cuda"] * 2
        assert transfers.seen == []


def test_tf32_is_switched_for_convolutions_and_matrix_products():
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    try:
        for tf32 in (True, False):
            allow_tf32(tf32)
            assert [switch.allow_tf32 for switch in switches] == [tf32] * 2
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
