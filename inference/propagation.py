"""The road from a video's frames to its label maps, common to the benchmarks and to users' clips."""
from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.video import Video
from inference_core import InferenceCore, to_label_map
from model.checkpoint import load_network
from model.defaults import INFERENCE_DEFAULTS, KERNEL_SIGMA, STRIDE
from model.network import PropagationNetwork
from util.allocation import give_memory_back, keep_memory
from util.cli import InputError, pluralize, warn
from util.device import out_of_memory
from util.normalization import normalize


@dataclass(frozen=True)
class PropagationConfig:
    """How to propagate; see `InferenceCore` for what is not here.

    Attributes:
        size: pixels of the shorter side to compute at; None: the frames' own.
        workers: threads that read frames ahead.
    """
    top_k: int | None = 50
    kernel_sigma: float | None = None
    mem_every: int = 5
    max_memory_frames: int | None = None
    amp: bool = False
    size: int | None = None
    workers: int = 2

    @classmethod
    def from_args(cls, args: argparse.Namespace, network: PropagationNetwork) -> PropagationConfig:
        """The config of parsed `inference.arguments.add_arguments`, with the network's defaults for what is not set."""
        defaults = INFERENCE_DEFAULTS[network.variant]
        size = args.size or defaults.size or args.default_size
        kernel_sigma = defaults.kernel_sigma or (KERNEL_SIGMA if args.use_km else None)
        return cls(None if args.no_top else args.top_k or defaults.top_k, None if args.no_km else kernel_sigma,
                   args.mem_every, args.max_memory_frames, args.amp, None if size == -1 else size, args.num_workers)


def load_for_propagation(path: Path, device: torch.device) -> PropagationNetwork:
    """`load_network`, with memory then allocated as suits frames: to be called before anything else makes tensors."""
    give_memory_back()          # what loading needs for a moment
    network = load_network(path, device)
    keep_memory()
    return network


class Timer:
    """Seconds and frames that propagation took, without reading and writing files."""

    def __init__(self):
        self.seconds, self.frames = 0.0, 0


def propagate(network: PropagationNetwork, video: Video, options: PropagationConfig, indices: Sequence[int],
              clock: Timer) -> Iterator[tuple[int, np.ndarray, list[int]]]:
    """Propagate the video's masks over its frames in the order of ``indices``, up or down.

    Frames before the first one with an object give nothing.

    Yields:
        the frame's index, its label map (H, W) uint8 at the frame's own size, the labels known so far.

    Raises:
        InputError: a frame or mask cannot be used; the message names it.
    """
    core = InferenceCore(network, options.top_k, options.kernel_sigma, options.mem_every, options.max_memory_frames,
                         options.amp)
    shape = None
    for index, frame in zip(indices, video.frames.read(indices, options.workers), strict=True):
        height, width = frame.shape[:2]
        if min(height, width) < STRIDE:
            raise InputError(f"{video.frames.describe(index)}: {width}x{height} pixels; "
                             f"frames need at least {STRIDE} on both sides")
        if shape not in (None, frame.shape):
            raise InputError(f"{video.frames.describe(index)}: {width}x{height} pixels, "
                             f"the frames before it {shape[1]}x{shape[0]}")
        shape = frame.shape
        given = video.mask(index, height, width)
        if given is None and not core.labels:
            continue
        start = time.perf_counter()
        size = inference_size(height, width, options.size)
        # Objects too small to be seen at this size are followed all the same, as published.
        objects = None if given is None else np.unique(given[given > 0]).tolist()
        try:
            mask = None if given is None else resize_mask(given, size, video, index)
            probabilities = core.step(preprocess_frame(frame, core.device, size), mask, objects)
            label_map = to_label_map(probabilities, core.labels, (height, width)).cpu().numpy()
        except (RuntimeError, OSError) as error:
            if not out_of_memory(error):
                raise
            count = len({*core.labels, *(objects or [])})
            raise InputError(f"{video.frames.describe(index)}: out of memory with {pluralize(count, 'object')} at "
                             f"{size[1]}x{size[0]} pixels; try a smaller size, --max_memory_frames, or --amp") from None
        clock.seconds += time.perf_counter() - start
        clock.frames += 1
        yield index, label_map, list(core.labels)


def inference_size(height: int, width: int, shorter: int | None) -> tuple[int, int]:
    """The size to compute at, so that the shorter side has so many pixels; the longer one is rounded down."""
    if shorter is None:
        return height, width
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def preprocess_frame(frame: np.ndarray, device: torch.device, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, *size) float on the device, normalised for the network, then resized (bicubic)."""
    pixels = torch.tensor(frame, pin_memory=device.type == "cuda").to(device, non_blocking=True).permute(2, 0, 1)
    image = normalize(pixels)
    if tuple(image.shape[1:]) != size:
        image = F.interpolate(image[None], size, mode="bicubic", align_corners=False)[0]
    return image


def resize_mask(mask: np.ndarray, size: tuple[int, int], video: Video, index: int) -> Tensor:
    """The given mask at the size to compute at, nearest."""
    resized = F.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest")[0, 0].long()
    lost = np.setdiff1d(mask, resized.numpy())
    if len(lost):
        warn(f"{video.masks[index]}: object {lost[0]} is too small to be seen at {size[1]}x{size[0]} pixels; "
             f"compute at a larger size")
    return resized
