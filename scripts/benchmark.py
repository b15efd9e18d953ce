"""Measure how long a frame takes, where the time goes, and how much memory it needs.

  python -m scripts.benchmark [--model FILE] [--device NAME] [--amp] [--tf32] [--objects 1 3 5] [--memory 10 50 100]

For each number of objects and of memory frames: the median seconds of a frame of random pixels, its parts, the peak
memory, and for the published network the speed as a share of a square float32 matrix product's, measured in turn with
the frames. That share counts the arithmetic of the original implementation's convolutions (a multiplication and an
addition are two) whatever is really computed, so it tells how much faster than the original this is, on any machine.
"""
from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import torch

import inference_core
from inference.arguments import MAX_SIDE
from inference.propagation import load_for_propagation
from inference_core import InferenceCore, to_label_map
from model.defaults import INFERENCE_DEFAULTS, STRIDE, default_weights
from model.network import PropagationNetwork
from util.cli import InputError, pluralize, positive_int, run
from util.device import allow_tf32, out_of_memory, pick_device

# Multiplications of the original for each stride-16 location of a frame, and besides for each object in it.
ORIGINAL_FRAME, ORIGINAL_OBJECT = 128e9 / 1620, 106e9 / 1620
MATRIX = 2048
MOST_FRAMES = 10_000      # in memory


class Setting(NamedTuple):
    """What is measured."""
    model: Path
    device: str | None
    amp: bool
    tf32: bool
    objects: int
    memory: int
    size: tuple[int, int]
    repeats: int


class Result(NamedTuple):
    """What came out; seconds are medians."""
    variant: str
    seconds: float
    parts: dict[str, float]
    megabytes: float
    matrix_product: float       # floating-point operations a second


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product_speed(device: torch.device) -> float:
    """Floating-point operations a second of a square float32 matrix product."""
    a = torch.randn(MATRIX, MATRIX, device=device)
    synchronize(device)
    start = time.perf_counter()
    a @ a
    synchronize(device)
    return 2 * MATRIX ** 3 / (time.perf_counter() - start)


def peak_megabytes(device: torch.device) -> float:
    """The most memory that this process ever held: of the GPU there, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2 ** 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stopwatch:
    """Adds up the seconds spent in functions of an object or module, until it is stopped."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}
        self._undo: list[Callable[[], None]] = []

    def watch(self, part: str, owner: object, name: str) -> None:
        """Count the calls of ``owner.name`` as a part."""
        function, own = getattr(owner, name), name in vars(owner)

        @wraps(function)
        def timed(*args: object, **kwargs: object) -> object:
            synchronize(self.device)
            start = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize(self.device)
            self.seconds[part] = self.seconds.get(part, 0) + time.perf_counter() - start
            return result
        setattr(owner, name, timed)
        self._undo.append((lambda: setattr(owner, name, function)) if own else (lambda: delattr(owner, name)))

    def stop(self) -> None:
        """Leave everything as it was."""
        for undo in reversed(self._undo):
            undo()


def watch_parts(network: PropagationNetwork, device: torch.device) -> Stopwatch:
    """A stopwatch on the parts of a frame's work."""
    watch = Stopwatch(device)
    watch.watch("encoders", network.rgb_encoder, "forward")
    for name in ("forward", "image_part"):
        watch.watch("encoders", network.mask_rgb_encoder, name)
    for head in filter(None, (network.kv_m_f16, network.kv_q_f16)):
        watch.watch("heads", head, "forward")
    watch.watch("read", inference_core, "read")
    watch.watch("decoder", network.decoder, "context")
    watch.watch("decoder", network, "segment")
    return watch


def filled_core(network: PropagationNetwork, setting: Setting, image: torch.Tensor) -> InferenceCore:
    """A core that follows the objects, vertical stripes, with so many frames in memory."""
    height, width = setting.size
    core = InferenceCore(network, INFERENCE_DEFAULTS[network.variant].top_k, amp=setting.amp, mem_every=10 ** 9)
    stripes = torch.arange(width).expand(height, width) * (setting.objects + 1) // width
    core.step(image, stripes)
    core.step(image)
    for group in core._groups:             # going through so many frames would take too long
        key, value = (rows.clone().T.unflatten(1, (-(-height // STRIDE), -1)) for rows in group.bank.blocks()[0])
        while len(group.bank) < setting.memory - 1:
            noise = 1 + 0.1 * torch.randn_like(key)
            group.bank.add(key * noise, value, permanent=True)
    return core


@torch.inference_mode()
def measure(setting: Setting) -> Result:
    """Time the frames of one setting."""
    device = pick_device(setting.device)
    allow_tf32(setting.tf32)
    network = load_for_propagation(setting.model, device)
    images = [torch.randn(3, *setting.size) for _ in range(3)]
    core = filled_core(network, setting, images[0])

    def frame(index: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        to_label_map(core.step(images[index % len(images)]), core.labels, setting.size).cpu()
        return time.perf_counter() - start
    for index in range(2):
        frame(index)
        matrix_product_speed(device)
    # In turn, since other work on the machine slows both.
    times, speeds = zip(*((frame(index), matrix_product_speed(device)) for index in range(setting.repeats)), strict=True)
    watch = watch_parts(network, device)
    whole = sum(frame(index) for index in range(min(setting.repeats, 3)))
    watch.stop()
    parts = {name: seconds / whole for name, seconds in watch.seconds.items()}
    return Result(network.variant, statistics.median(times), {**parts, "rest": 1 - sum(parts.values())},
                  peak_megabytes(device), statistics.median(speeds))


def line(setting: Setting, result: Result) -> str:
    """A row of the table."""
    cells = (-(-setting.size[0] // STRIDE)) * (-(-setting.size[1] // STRIDE))
    original = 2 * cells * (ORIGINAL_FRAME + setting.objects * ORIGINAL_OBJECT)
    ratio = f"{original / result.seconds / result.matrix_product:.2f}" if result.variant == "published" else ""
    parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result.parts.items())
    return (f"| {setting.objects} | {setting.memory} | {result.seconds:.3g} | {1 / result.seconds:.2f} | {ratio} | "
            f"{result.megabytes:.0f} | {parts} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=default_weights(), metavar="FILE",
                        help="weights; their values do not matter for the speed (default: as propagate.py)")
    parser.add_argument("--device", metavar="NAME", help="default: as propagate.py")
    parser.add_argument("--amp", action="store_true", help="compute in 16 bits where safe")
    parser.add_argument("--tf32", action="store_true", help="compute float32 in TF32 on NVIDIA GPUs")
    parser.add_argument("--objects", type=positive_int, nargs="+", default=[1, 3, 5], metavar="K",
                        help="default: %(default)s")
    parser.add_argument("--memory", type=positive_int, nargs="+", default=[10, 50, 100], metavar="T",
                        help="frames in memory (default: %(default)s)")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"),
                        help="pixels (default: %(default)s)")
    parser.add_argument("--repeats", type=positive_int, default=7, metavar="N", help="frames timed (default: %(default)s)")
    args = parser.parse_args()
    if min(args.size) < STRIDE or max(args.size) > MAX_SIDE:
        raise InputError(f"--size {args.size[0]} {args.size[1]}: both sides need {STRIDE} to {MAX_SIDE} pixels")
    if max(args.objects) >= min(256, args.size[1]):
        raise InputError(f"--objects {max(args.objects)}: at most 255, and fewer than columns of pixels")
    if max(args.memory) > MOST_FRAMES:
        raise InputError(f"--memory {max(args.memory)}: at most {MOST_FRAMES}")
    if min(args.memory) < 2:
        raise InputError("--memory 1: a frame reads two or more, the first and the one before it")
    context = multiprocessing.get_context("spawn")
    for objects in args.objects:
        for memory in args.memory:
            setting = Setting(args.model, args.device, args.amp, args.tf32, objects, memory, tuple(args.size),
                              args.repeats)
            with ProcessPoolExecutor(1, context) as pool:          # a process of its own, for its peak memory
                try:
                    result = pool.submit(measure, setting).result()
                except (RuntimeError, BrokenProcessPool) as error:
                    if not isinstance(error, BrokenProcessPool) and not out_of_memory(error):
                        raise
                    raise InputError(f"out of memory with {pluralize(objects, 'object')} and {memory} frames in memory "
                                     f"at {args.size[1]}x{args.size[0]} pixels") from None
            if (objects, memory) == (args.objects[0], args.memory[0]):
                device = pick_device(args.device)
                print(f"{result.variant} network, {device}{', 16 bits' * args.amp}"
                      f"{', TF32' * (args.tf32 and device.type == 'cuda')}, PyTorch "
                      f"{torch.__version__}, {torch.get_num_threads()} threads; matrix product "
                      f"{result.matrix_product / 1e9:.0f} GFLOP/s\n")
                print("| objects | in memory | seconds a frame | frames/s | of a matrix product | peak MB | parts |")
                print("| --- " * 7 + "|")
            print(line(setting, result), flush=True)


if __name__ == "__main__":
    run(main)
