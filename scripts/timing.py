"""Timing of frames and training steps, for the benchmark scripts."""
from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from dataset.synthetic import draw_clip
from inference.propagation import load_for_propagation, preprocess_frame
from inference_core import InferenceCore, to_label_map
from model.checkpoint import read_network
from model.defaults import INFERENCE_DEFAULTS, STRIDE
from model.model import Trainer
from model.variants import build
from scripts.plain_network import PlainNetwork
from util.allocation import keep_memory
from util.device import allow_tf32, peak_memory, pick_device

Result = TypeVar("Result")


class ClipRun(NamedTuple):
    """Mean seconds per frame, peak MB, and probabilities (K+1, H, W) of the last frame."""
    seconds: float
    megabytes: float
    probabilities: np.ndarray


def in_new_process(function: Callable[..., Result], *args: object) -> Result:
    """The result of a call in a new process, so that its peak memory does not include earlier calls."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise MemoryError("the process was killed") from error


def measure(function: Callable[[], torch.Tensor], repeats: int, device: torch.device) -> tuple[float, float]:
    """The median seconds of a call after the first, and the peak MB of the GPU if used, else of the process."""
    seconds = timeit.repeat(lambda: function().cpu(), number=1, repeat=1 + repeats)[1:]     # .cpu() waits for the GPU
    return statistics.median(seconds), peak_megabytes(device)


def peak_megabytes(device: torch.device) -> float:
    """The peak MB of the GPU if used, else of the process; NaN where the system does not tell."""
    peaks = peak_memory(device)
    return peaks.get("GPU", peaks.get("RAM", math.nan)) / 2 ** 20


@torch.inference_mode()
def time_frames(args: argparse.Namespace, objects: int, memory: int) -> tuple[float, float]:
    """`measure` frames with vertical stripes as objects; ``args``: of scripts/benchmark.py."""
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    network = load_for_propagation(args.model, device)
    defaults = INFERENCE_DEFAULTS[network.variant]
    core = InferenceCore(network, defaults.top_k, defaults.kernel_sigma, amp=args.amp, mem_every=10 ** 9)
    height, width = args.size
    image, stripes = torch.randn(3, height, width), torch.arange(width).expand(height, width) * (objects + 1) // width
    core.step(image, stripes)
    core.step(image)
    for group in core._groups:             # propagating through so many frames would take too long
        key, value = (rows.T[..., None].clone() for rows in group.bank.blocks()[0])
        while len(group.bank) < memory - 1:
            group.bank.add(key * (1 + 0.1 * torch.randn_like(key)), value, temporary=False)
    return measure(lambda: to_label_map(core.step(image), core.labels, args.size), args.repeats, device)


@torch.inference_mode()
def time_clip(args: argparse.Namespace, objects: int, plain: bool) -> ClipRun:
    """Propagate masks through a drawn clip; ``args``: of scripts/compare_with_plain.py."""
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    height, width = (side // STRIDE * STRIDE for side in args.size)
    clip = list(draw_clip(args.frames, height, width, objects, seed=0))
    frames = [preprocess_frame(frame, device, (height, width)) for frame, _ in clip]
    labels = torch.from_numpy(clip[0][1])
    if plain:
        state = {name: value.to(device) for name, value in read_network(args.model).state_dict().items()}
        masks = torch.stack([labels == k for k in range(1, objects + 1)]).float().to(device)
        results = PlainNetwork(state).propagate(frames, masks)
    else:
        network = load_for_propagation(args.model, device)
        core = InferenceCore(network, INFERENCE_DEFAULTS[network.variant].top_k, amp=args.amp)
        names = list(range(1, objects + 1))         # also of objects hidden by others in the first frame
        results = (core.step(frame, labels, names) if index == 0 else core.step(frame)
                   for index, frame in enumerate(frames))
    next(results)
    start = time.perf_counter()
    last = [probabilities.cpu() for probabilities in results][-1]
    seconds = (time.perf_counter() - start) / (args.frames - 1)
    return ClipRun(seconds, peak_megabytes(device), last.float().numpy())


def time_step(args: argparse.Namespace, objects: int) -> tuple[float, float]:
    """`measure` training steps; ``args``: of scripts/benchmark_training.py."""
    keep_memory()
    device = pick_device(args.device)
    network = build(args.network, single_object=objects == 1).to(device, memory_format=torch.channels_last)
    trainer = Trainer(network, 1e-5, [], 0.1, args.amp)
    samples, size = (args.batch_size, args.frames), (args.size, args.size)
    target = torch.randint(objects + 1, (*samples, *size))
    batch = {"frames": torch.randn(*samples, 3, *size), "target": target, "selector": torch.ones(samples[0], objects),
             "masks": (target[:, :1] == torch.arange(1, objects + 1).view(-1, 1, 1)).float()}
    return measure(lambda: trainer.step(batch, 0)[0]["overlap"], args.repeats, device)
