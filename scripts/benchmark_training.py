"""Measure how long a training step takes in each stage, and how much memory it needs.

  python -m scripts.benchmark_training [--network lite] [--device NAME] [--amp bf16] [--batch_size 4] [--size 384]

Steps on samples of random pixels: what making real samples takes, scripts/benchmark_loading.py measures. Stages 1 to 3
learn from the same kind of sample, so they are one row.
"""
from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from model.defaults import INFERENCE_DEFAULTS, STRIDE
from model.model import AMP_TYPES, Trainer
from model.variants import build
from scripts.benchmark import peak_megabytes, synchronize
from util.allocation import keep_memory
from util.cli import InputError, positive_int, run
from util.device import pick_device


def random_batch(args: argparse.Namespace, single_object: bool) -> dict[str, torch.Tensor]:
    """What the data sets give: objects are vertical stripes, the same in all frames."""
    shape, objects = (args.batch_size, args.frames), 1 if single_object else 2
    stripes = torch.arange(args.size).expand(*shape, args.size, args.size) * (objects + 1) // args.size
    masks = torch.stack([(stripes[:, 0] == k + 1).float() for k in range(objects)], 1)
    return {"frames": torch.randn(*shape, 3, args.size, args.size), "masks": masks, "target": stripes,
            "selector": torch.ones(args.batch_size, objects)}


def measure(args: argparse.Namespace, single_object: bool) -> tuple[float, float]:
    """Median seconds of a step, and peak memory in MB."""
    keep_memory()
    device = pick_device(args.device)
    network = build(args.network, single_object).to(device, memory_format=torch.channels_last)
    trainer = Trainer(network, 1e-5, [], 0.1, args.amp)
    batch, times = random_batch(args, single_object), []
    for _ in range(1 + args.repeats):
        synchronize(device)
        start = time.perf_counter()
        trainer.step(batch, 0)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), peak_megabytes(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=INFERENCE_DEFAULTS, default="published", help="default: %(default)s")
    parser.add_argument("--device", metavar="NAME", help="default: as train.py")
    parser.add_argument("--amp", nargs="?", const="bf16", choices=AMP_TYPES,
                        help="16 bits, as of train.py (default: float32; without a type bf16)")
    parser.add_argument("--batch_size", type=positive_int, default=4, metavar="N", help="default: %(default)s")
    parser.add_argument("--size", type=positive_int, default=384, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--frames", type=positive_int, default=3, metavar="N", help="of a sample (default: %(default)s)")
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="steps timed (default: %(default)s)")
    args = parser.parse_args()
    if args.size % STRIDE:
        raise InputError(f"--size {args.size}: has to be a multiple of {STRIDE}")
    if args.frames < 2:
        raise InputError("--frames 1: a sample has two or more, the first and one to find the objects in")
    print(f"{args.network} network on {pick_device(args.device)}, {args.amp or 'float32'}, "
          f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
          f"batch {args.batch_size}, {args.frames} frames of {args.size} pixels\n\n"
          f"| stage | objects | seconds a step | samples/s | peak MB |\n| --- | --- | --- | --- | --- |")
    for stage, single_object in (("0", True), ("1 to 3", False)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:   # of its own, for its peak memory
            seconds, megabytes = pool.submit(measure, args, single_object).result()
        print(f"| {stage} | {1 if single_object else 2} | {seconds:.3g} | {args.batch_size / seconds:.3g} | "
              f"{megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    run(main)
