"""Timing of frames, training steps and data loading, for the benchmark scripts."""
from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import NamedTuple, TypeVar
from unittest import mock

import torch

import inference_core
from inference.propagation import load_for_propagation
from inference_core import InferenceCore, to_label_map
from model.defaults import INFERENCE_DEFAULTS, STRIDE
from model.model import Trainer
from model.network import PropagationNetwork
from model.variants import build
from util.allocation import keep_memory
from util.device import allow_tf32, pick_device
from util.opencv import cv2

T = TypeVar("T")
MATRIX_SIDE = 2048


class FrameTiming(NamedTuple):
    """Medians over the timed frames."""
    variant: str                # the network's name
    seconds: float
    parts: dict[str, float]     # share of the time
    megabytes: float            # peak memory
    matrix_product: float       # floating-point operations per second


def in_new_process(function: Callable[..., T], *args: object) -> T:
    """Call a function in a new process, so that the memory of earlier calls is not in its `peak_megabytes`.

    Raises:
        MemoryError: the process was killed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool:
            raise MemoryError("the process was killed") from None


def synchronize(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_megabytes(device: torch.device) -> float:
    """Peak memory of this process, of the GPU if it uses one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2 ** 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Duration of a call."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


@contextmanager
def timed_parts(network: PropagationNetwork, device: torch.device) -> Iterator[Counter]:
    """The seconds spent in each part of a frame's computation within the block."""
    seconds = Counter()

    def timed(part: str, function: Callable) -> Callable:
        @wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            results = []
            seconds[part] += seconds_of(lambda: results.append(function(*args, **kwargs)), device)
            return results[0]
        return call

    parts = [("encoders", network.rgb_encoder, "forward"), ("encoders", network.mask_rgb_encoder, "forward"),
             ("encoders", network.mask_rgb_encoder, "image_part"), ("read", inference_core, "readout"),
             ("decoder", network.decoder, "context"), ("decoder", network, "segment"),
             *(("heads", head, "forward") for head in (network.kv_m_f16, network.kv_q_f16) if head is not None)]
    with ExitStack() as stack:
        for part, owner, name in parts:
            stack.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        yield seconds


def filled_core(network: PropagationNetwork, args: argparse.Namespace, objects: int, memory: int) -> InferenceCore:
    """A core that tracks vertical stripes as objects, with ``memory`` - 1 memory frames."""
    height, width = args.size
    defaults = INFERENCE_DEFAULTS[network.variant]
    core = InferenceCore(network, defaults.top_k, defaults.kernel_sigma, amp=args.amp, mem_every=10 ** 9)
    image, stripes = torch.randn(3, height, width), torch.arange(width).expand(height, width) * (objects + 1) // width
    core.step(image, stripes)
    core.step(image)
    for group in core._groups:             # propagating through so many frames would take too long
        key, value = (rows.clone().T.unflatten(1, (-(-height // STRIDE), -1)) for rows in group.bank.blocks()[0])
        while len(group.bank) < memory - 1:
            group.bank.add(key * (1 + 0.1 * torch.randn_like(key)), value, temporary=False)
    return core


@torch.inference_mode()
def time_frames(args: argparse.Namespace, objects: int, memory: int) -> FrameTiming:
    """Time frames with a number of objects and of frames in memory; ``args``: of scripts/benchmark.py."""
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    network = load_for_propagation(args.model, device)
    core = filled_core(network, args, objects, memory)
    images = [torch.randn(3, *args.size) for _ in range(3)]
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device=device)

    def frame(index: int) -> float:
        return seconds_of(lambda: to_label_map(core.step(images[index % len(images)]), core.labels, args.size).cpu(),
                          device)

    def matrix_product() -> float:
        return 2 * MATRIX_SIDE ** 3 / seconds_of(lambda: matrix @ matrix, device)
    for index in range(2):
        frame(index)
        matrix_product()
    # Alternating, because other processes slow both down.
    times, speeds = zip(*((frame(index), matrix_product()) for index in range(args.repeats)), strict=True)
    with timed_parts(network, device) as seconds:
        total = sum(frame(index) for index in range(min(args.repeats, 3)))
    parts = {name: part / total for name, part in seconds.items()}
    return FrameTiming(network.variant, statistics.median(times), {**parts, "rest": 1 - sum(parts.values())},
                       peak_megabytes(device), statistics.median(speeds))


def random_batch(args: argparse.Namespace, objects: int) -> dict[str, torch.Tensor]:
    """A batch as the data sets make it. Objects are vertical stripes, the same in all frames."""
    shape = args.batch_size, args.frames
    target = torch.arange(args.size).expand(*shape, args.size, args.size) * (objects + 1) // args.size
    masks = torch.stack([(target[:, 0] == k + 1).float() for k in range(objects)], 1)
    return {"frames": torch.randn(*shape, 3, args.size, args.size), "masks": masks, "target": target,
            "selector": torch.ones(args.batch_size, objects)}


def time_step(args: argparse.Namespace, objects: int) -> tuple[float, float]:
    """Median seconds of a training step, and peak memory in MB; ``args``: of scripts/benchmark_training.py."""
    keep_memory()
    device = pick_device(args.device)
    network = build(args.network, single_object=objects == 1).to(device, memory_format=torch.channels_last)
    trainer, batch = Trainer(network, 1e-5, [], 0.1, args.amp), random_batch(args, objects)
    times = [seconds_of(lambda: trainer.step(batch, 0), device) for _ in range(1 + args.repeats)]
    return statistics.median(times[1:]), peak_megabytes(device)


def time_loading(args: argparse.Namespace) -> None:
    """Print the samples/s that one loading worker makes for each stage."""
    from dataset.stages import bl30k_stage, static_stage, video_stage  # torchvision would count as memory of frames
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    options = {"seed": 0, "size": args.size, "length": args.frames}
    stages = (static_stage(args.data / "static", **options),
              bl30k_stage(args.data / "BL30K", lambda samples: 1, **options),
              video_stage(args.data / "DAVIS", args.data / "YouTube", lambda samples: 1, **options))
    print("\n| stage | samples/s of one loading worker |\n| --- | --- |")
    for stage, data in enumerate(stages):
        times = [seconds_of(partial(data.__getitem__, (0, index % len(data))), torch.device("cpu"))
                 for index in range(1 + 8 * args.repeats)]
        print(f"| {stage} | {1 / statistics.mean(times[1:]):.1f} |", flush=True)
