"""Loading and saving weights, with the errors that users meet."""
from __future__ import annotations

import os
import pickle
import sys
import warnings
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.defaults import PUBLISHED_WEIGHTS
from model.network import PropagationNetwork
from model.variants import build, variant_of
from util.cli import InputError


def read_file(path: Path) -> object:
    """What a file of PyTorch holds: tensors and plain values only, nothing that runs.

    Raises:
        InputError: there is no such file, or it is not one of these.
    """
    if not path.is_file():
        hint = "; get it with `python download_model.py`, or name another" if path == PUBLISHED_WEIGHTS else ""
        raise InputError(f"{path}: no such weights file{hint}")
    try:
        with warnings.catch_warnings(action="ignore") if sys.version_info >= (3, 11) else nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
            ImportError):
        raise InputError(f"{path}: not a readable PyTorch weights file (damaged, cut off, or it holds more than "
                         f"tensors)") from None


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """The network's tensors in a weights file, or in a training checkpoint that holds them under ``network``.

    Raises:
        InputError: there is no such file, or it is not one of these.
    """
    path = Path(path)
    state = read_file(path)
    if isinstance(state, dict) and isinstance(state.get("network"), dict):
        state = state["network"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no network weights (expected a state dict, or one under 'network')")
    if not all(isinstance(name, str) for name in state):
        raise InputError(f"{path}: holds no network weights (its tensors have no names)")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_complex() or not value.isfinite().all():
            raise InputError(f"{path}: {name} is not made of finite numbers; the weights are damaged")
    return {name.removeprefix("module."): value for name, value in state.items()}      # as wrapped networks are saved


def load_network(path: str | os.PathLike, device: torch.device | str = "cpu") -> PropagationNetwork:
    """The network in a weights file, ready for inference: batch normalisation folded, no gradients, channels last.

    Raises: as `read_network`.
    """
    network = read_network(path).eval().requires_grad_(False)
    fold_batch_norm(network)
    return network.to(device, memory_format=torch.channels_last)


def fold_batch_norm(network: nn.Module) -> None:
    """Put each batch normalisation, which keeps to its stored statistics, into the convolution before it."""
    for parent in network.modules():
        for (conv_name, conv), (norm_name, norm) in pairwise(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())


def read_network(path: str | os.PathLike) -> PropagationNetwork:
    """The network in a weights file as it is, on the CPU.

    Raises:
        InputError: the file is missing, unreadable or of another network; the message says what differs.
    """
    state = read_state(path)
    stem = state.get("mask_rgb_encoder.conv1.weight")
    with torch.device("meta"):               # no memory, no time spent on weights that are replaced at once
        network = build(variant_of(state), single_object=stem is not None and stem.dim() == 4 and stem.shape[1] == 4)
    load_state(network, state, path, assign=True)
    return network


def load_state(network: PropagationNetwork, state: dict[str, Tensor], path: str | os.PathLike,
               assign: bool = False) -> None:
    """Load tensors that were read from ``path``; ``assign``: take them as they are instead of copying.

    Raises:
        InputError: they are of another network; the message says what differs.
    """
    wanted = network.state_dict()
    difference = _difference(wanted, state)
    if difference:
        raise InputError(f"{path}: weights of another network ({difference})")
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in state.items()}, assign=assign)


def plain_state(network: PropagationNetwork) -> dict[str, Tensor]:
    """The network's tensors as the published code saves them."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def save_weights(network: PropagationNetwork, path: str | os.PathLike) -> None:
    """Write the plain state dict, which the published code loads too."""
    save_whole(plain_state(network), path)


def save_whole(content: dict, path: str | os.PathLike) -> None:
    """`torch.save` to a file that appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        try:
            torch.save(content, partial)
        except RuntimeError as error:          # how PyTorch says that the disk is full
            raise InputError(f"{path}: cannot be written ({str(error).splitlines()[0][:120]})") from None
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """What makes one state dict not fit the other, in a few words; empty if nothing does."""
    parts = []
    for what, names in (("lacks", expected.keys() - found.keys()), ("has besides", found.keys() - expected.keys())):
        if names:
            first = next(name for name in (*expected, *found) if name in names)
            parts.append(f"{what} {len(names)} tensor{'s' * (len(names) > 1)} such as {first}")
    for name in expected.keys() & found.keys():
        if expected[name].shape != found[name].shape:
            parts.append(f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}")
            break
    return "; ".join(parts)
