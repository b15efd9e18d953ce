"""Measure the time and peak memory of a training step, and with --data how fast training samples are loaded.

  python -m scripts.benchmark_training [--network lite] [--device NAME] [--amp bf16] [--batch_size 4] [--size 384]

Steps run on random pixels. Stages 1 to 3 train on the same kind of sample, so they share a row.
"""
from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model.defaults import INFERENCE_DEFAULTS, STRIDE
from util.cli import InputError, positive_int, run

if TYPE_CHECKING:
    import torch


def random_batch(args: argparse.Namespace, objects: int) -> dict[str, torch.Tensor]:
    """A batch as the data sets make it. Objects are vertical stripes, the same in all frames."""
    import torch
    shape = args.batch_size, args.frames
    target = torch.arange(args.size).expand(*shape, args.size, args.size) * (objects + 1) // args.size
    masks = torch.stack([(target[:, 0] == k + 1).float() for k in range(objects)], 1)
    return {"frames": torch.randn(*shape, 3, args.size, args.size), "masks": masks, "target": target,
            "selector": torch.ones(args.batch_size, objects)}


def time_step(args: argparse.Namespace, objects: int) -> tuple[float, float]:
    """Median seconds of a step, and peak memory in MB."""
    import torch

    from model.model import Trainer
    from model.variants import build
    from scripts.timing import peak_megabytes, seconds_of
    from util.allocation import keep_memory
    from util.device import pick_device
    keep_memory()
    device = pick_device(args.device)
    network = build(args.network, single_object=objects == 1).to(device, memory_format=torch.channels_last)
    trainer, batch = Trainer(network, 1e-5, [], 0.1, args.amp), random_batch(args, objects)
    times = [seconds_of(lambda: trainer.step(batch, 0), device) for _ in range(1 + args.repeats)]
    return statistics.median(times[1:]), peak_megabytes(device)


def time_loading(args: argparse.Namespace) -> None:
    """Print the samples/s that one loading worker makes for each stage."""
    import torch

    from dataset.stages import bl30k_stage, static_stage, video_stage
    from scripts.timing import seconds_of
    from util.opencv import cv2
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--network", choices=INFERENCE_DEFAULTS, default="published", help="default: %(default)s")
    add("--device", metavar="NAME", help="default: as train.py")
    add("--amp", nargs="?", const="bf16", choices=["bf16", "fp16"],
        help="automatic mixed precision (default: off; --amp alone: bf16)")
    add("--batch_size", type=positive_int, default=4, metavar="N", help="default: %(default)s")
    add("--size", type=positive_int, default=384, metavar="PIXELS", help="default: %(default)s")
    add("--frames", type=positive_int, default=3, metavar="N", help="frames per sample (default: %(default)s)")
    add("--repeats", type=positive_int, default=5, metavar="N", help="timed steps (default: %(default)s)")
    add("--data", type=Path, metavar="DIR", help="also time loading from this output of scripts/make_dataset.py")
    args = parser.parse_args()
    if args.size % STRIDE:
        raise InputError(f"--size {args.size}: must be a multiple of {STRIDE}")
    if args.frames < 2:
        raise InputError("--frames 1: must be at least 2, an annotated frame and one to segment")
    import torch

    from scripts.timing import in_new_process
    from util.device import pick_device
    print(f"{args.network} network on {pick_device(args.device)}, {args.amp or 'float32'}, "
          f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
          f"batch {args.batch_size}, {args.frames} frames of {args.size} pixels\n\n"
          f"| stage | objects | seconds a step | samples/s | peak MB |\n| --- | --- | --- | --- | --- |")
    for stage, objects in (("0", 1), ("1 to 3", 2)):
        seconds, megabytes = in_new_process(time_step, args, objects)
        print(f"| {stage} | {objects} | {seconds:.3g} | {args.batch_size / seconds:.3g} | "
              f"{megabytes:.0f} |", flush=True)
    if args.data:
        time_loading(args)


if __name__ == "__main__":
    run(main)
