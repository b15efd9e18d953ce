"""Propagation of masks through a video: from frames and input masks to label maps."""
from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.video import Video
from inference_core import InferenceCore, to_label_map
from model.checkpoint import load_network
from model.defaults import INFERENCE_DEFAULTS, KERNEL_SIGMA, STRIDE
from model.network import PropagationNetwork
from util.allocation import keep_memory
from util.cli import InputError, is_out_of_memory, pluralize, warn
from util.device import has_bfloat16_instructions, warn_of_slow_amp
from util.normalization import normalize

MIN_BYTES_PER_PIXEL = 120       # at the inference size; measured: 200 (lite) to 600 (published) with one object


@dataclass(frozen=True)
class PropagationConfig:
    """Settings of a propagation, see `InferenceCore`."""
    top_k: int | None = 50
    kernel_sigma: float | None = None
    mem_every: int = 5
    max_memory_frames: int | None = None
    amp: bool = False
    size: int | None = None         # pixels of the shorter side at inference; None: the size of the frames
    workers: int = 2                # threads that read frames ahead

    @classmethod
    def from_args(cls, args: argparse.Namespace, network: PropagationNetwork) -> PropagationConfig:
        """The config of parsed `inference.arguments.add_arguments` and the network's defaults."""
        defaults = INFERENCE_DEFAULTS[network.variant]
        size = args.size or defaults.size or args.default_size
        kernel_sigma = defaults.kernel_sigma or (KERNEL_SIGMA if args.use_km else None)
        amp = default_amp(network) if args.amp is None else args.amp
        if amp:
            warn_of_slow_amp(next(network.parameters()).device)
        return cls(None if args.no_top else args.top_k or defaults.top_k, None if args.no_km else kernel_sigma,
                   args.mem_every or defaults.mem_every, args.max_memory_frames, amp, None if size == -1 else size,
                   args.num_workers)

    def new_core(self, network: PropagationNetwork) -> InferenceCore:
        """A core with these settings, which has seen no frame."""
        return InferenceCore(network, self.top_k, self.kernel_sigma, self.mem_every, self.max_memory_frames, self.amp)


def default_amp(network: PropagationNetwork) -> bool:
    """Return whether 16-bit computation is the default of the network on its device."""
    device = next(network.parameters()).device
    return INFERENCE_DEFAULTS[network.variant].bfloat16 and has_bfloat16_instructions(device)


def load_for_propagation(path: Path, device: torch.device) -> PropagationNetwork:
    """`load_network`, after which freed memory is kept for the next frame."""
    network = load_network(path, device)
    keep_memory()
    return network


@dataclass
class Timer:
    """Seconds and frames of propagation, without reading and writing files."""
    seconds: float = 0.0
    frames: int = 0


class Run(NamedTuple):
    """How the masks of a video were made.

    Attributes:
        device: its type.
        processes: number of processes that divided the videos among them.
        seconds, frames: see `Timer`.
        memory: peak of the process so far, see `util.device.peak_memory`.
    """
    device: str
    processes: int
    seconds: float
    frames: int
    memory: Mapping[str, float]


class Prediction(NamedTuple):
    """The result of one frame.

    Attributes:
        index: of the frame.
        label_map: (H, W) uint8, at the frame's size.
        labels: of the K objects known so far.
        probabilities: (K+1, h, w), at the inference size, background first.
    """
    index: int
    label_map: np.ndarray
    labels: list[int]
    probabilities: Tensor


def propagate(core: InferenceCore, video: Video, config: PropagationConfig, indices: Sequence[int],
              timer: Timer) -> Iterator[Prediction]:
    """Propagate the input masks of a video through its frames at ascending or descending consecutive ``indices``.

    Frames before the first object are skipped. ``core`` is new, or has seen the frames before ``indices``.
    """
    for index, frame in zip(indices, video.frames.read(indices, config.workers), strict=True):
        height, width = frame.shape[:2]
        input_mask = video.input_mask(index, height, width)
        if input_mask is None and not core.labels:
            continue
        name, size = video.frames.describe(index), inference_size(height, width, config.size)
        if not core.labels:
            check_memory(name, size, core.device)
        start = time.perf_counter()
        mask = input_labels = None
        if input_mask is not None:
            mask, input_labels = resize_mask(input_mask, size), np.setdiff1d(input_mask, 0).tolist()
            lost = np.setdiff1d(input_labels, mask.numpy())     # tracked nevertheless, as published
            if len(lost):
                warn(f"{video.masks[index]}: object {lost[0]} has no pixel at {size[1]}x{size[0]} pixels; use a larger "
                     f"--size")
        try:
            probabilities = core.step(preprocess_frame(frame, core.device, size), mask, input_labels)
            label_map = to_label_map(probabilities, core.labels, (height, width)).cpu().numpy()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            objects = pluralize(len({*core.labels, *(input_labels or [])}), "object")
            raise InputError(f"{name}: out of memory with {objects} at {size[1]}x{size[0]} pixels; try a smaller "
                             f"--size, --max_memory_frames, or --amp") from error
        timer.seconds += time.perf_counter() - start
        timer.frames += 1
        yield Prediction(index, label_map, list(core.labels), probabilities)


def inference_size(height: int, width: int, shorter: int | None) -> tuple[int, int]:
    """The size whose shorter side has the given number of pixels; the longer side is rounded down."""
    if shorter is None:
        return height, width
    return tuple(int(shorter * side / min(height, width)) for side in (height, width))


def check_memory(name: str, size: tuple[int, int], device: torch.device) -> None:
    """Raise InputError if frames of an inference size cannot fit in the memory of the device."""
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:                                           # Windows
        return
    needed = MIN_BYTES_PER_PIXEL * size[0] * size[1]
    if needed > available:
        fitting = int(min(size) * (available / needed / 8) ** 0.5) // STRIDE * STRIDE
        raise InputError(f"{name}: at {size[1]}x{size[0]} pixels it needs at least {needed / 1e9:.0f} GB of memory, "
                         f"there are {available / 1e9:.0f} GB; try --size {fitting}")


def preprocess_frame(frame: np.ndarray, device: torch.device, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, *size) float on the device, normalised, then resized (bicubic)."""
    on_gpu = device.type == "cuda"              # on MPS, an asynchronous copy may read memory that has been freed
    pixels = torch.tensor(np.ascontiguousarray(frame), pin_memory=on_gpu)
    image = normalize(pixels.to(device, non_blocking=on_gpu).permute(2, 0, 1))
    if tuple(image.shape[1:]) != size:
        image = F.interpolate(image[None], size, mode="bicubic", align_corners=False)[0]
    return image


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W) labels -> size, int64, resized (nearest)."""
    labels = torch.tensor(np.ascontiguousarray(mask)).float()
    return F.interpolate(labels[None, None], size, mode="nearest")[0, 0].long()
