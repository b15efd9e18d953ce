"""Loading and saving weights and checkpoints; invalid files raise InputError, which names the file."""
from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.defaults import PUBLISHED_WEIGHTS
from model.network import PropagationNetwork
from model.variants import build, variant_of
from util.cli import InputError, pluralize
from util.files import atomic_file


def read_file(path: Path) -> object:
    """Return the content of a PyTorch file: tensors and plain values only, no code is run.

    Raises:
        InputError: the file does not exist, is damaged, or holds anything else.
    """
    if not path.is_file():
        hint = "; get it with `python download_model.py`, or name another" if path == PUBLISHED_WEIGHTS else ""
        raise InputError(f"{path}: no such weights file{hint}")
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK" and zipfile.ZipFile(file).testzip():      # PyTorch does not verify checksums
                raise zipfile.BadZipFile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
            ImportError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable PyTorch weights file (damaged, cut off, or it holds more than "
                         f"tensors)") from error


def check_state(state: object, path: str | os.PathLike) -> dict[str, Tensor]:
    """Return a network's state dict that was read from ``path``, without the prefix of wrapped networks.

    Raises:
        InputError: it is no dict of named tensors with finite numbers.
    """
    if not isinstance(state, dict) or not state or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise InputError(f"{path}: holds no network weights (expected a state dict, or one under 'network')")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_complex() or not value.isfinite().all():
            raise InputError(f"{path}: {name} is not made of finite numbers; the weights are damaged")
    return {name.removeprefix("module."): value for name, value in state.items()}


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the checked state dict in a weights file, or in a checkpoint: the moving average, if it has one."""
    state = read_file(Path(path))
    if isinstance(state, dict) and "network" in state:
        state = state.get("average", state["network"])
    return check_state(state, path)


def load_network(path: str | os.PathLike, device: torch.device | str = "cpu") -> PropagationNetwork:
    """As `read_network`, but for inference: BatchNorm folded, without gradients, channels last."""
    network = read_network(path).eval().requires_grad_(False)
    fold_batch_norm(network)
    network.to(device, memory_format=torch.channels_last)
    return network


def fold_batch_norm(network: nn.Module) -> None:
    """Fold each BatchNorm into its convolution: bnN into convN, in a Sequential into the module before it."""
    for parent in network.modules():
        children = dict(parent.named_children())
        for name, norm in children.items():
            if isinstance(norm, nn.BatchNorm2d):
                before = str(int(name) - 1) if isinstance(parent, nn.Sequential) else name.replace("bn", "conv")
                setattr(parent, before, fuse_conv_bn_eval(children[before], norm))
                setattr(parent, name, nn.Identity())


def read_network(path: str | os.PathLike) -> PropagationNetwork:
    """Return the network in a weights file, for training, on the CPU.

    Raises:
        InputError: the file does not exist, is damaged, or is of another network; the message names the difference.
    """
    state = read_state(path)
    stem = state.get("mask_rgb_encoder.conv1.weight")
    with torch.device("meta"):               # weights that are replaced need no memory and no initialisation
        network = build(variant_of(state), single_object=stem is not None and stem.dim() == 4 and stem.shape[1] == 4)
    network.float()
    load_state(network, state, path, assign=True)
    return network


def load_state(network: PropagationNetwork, state: dict[str, Tensor], path: str | os.PathLike,
               assign: bool = False) -> None:
    """Load a state dict that was read from ``path``; ``assign``: use its tensors instead of copying them.

    Raises:
        InputError: it is of another network; the message names the difference.
    """
    expected = network.state_dict()
    difference = _difference(expected, state)
    if difference:
        raise InputError(f"{path}: weights of another network ({difference})")
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in state.items()}, assign=assign)


def plain_state(network: PropagationNetwork) -> dict[str, Tensor]:
    """Return the network's state dict on the CPU, as the published code saves it."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def save(content: dict, path: Path) -> None:
    """Write a PyTorch file atomically.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_file(path) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:            # raised while PyTorch handles the OSError of a full disk
            raise error.__context__ if isinstance(error.__context__, OSError) else error  # noqa: B904


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Describe how a state dict differs from the expected one; empty if names and shapes are equal."""
    parts = []
    for verb, state, other in (("lacks", expected, found), ("also has", found, expected)):
        names = [name for name in state if name not in other]
        if names:
            parts.append(f"{verb} {pluralize(len(names), 'tensor')} such as {names[0]}")
    shapes = [f"{name} is {tuple(found[name].shape)}, not {tuple(value.shape)}" for name, value in expected.items()
              if name in found and found[name].shape != value.shape]
    return "; ".join(parts + shapes[:1])
