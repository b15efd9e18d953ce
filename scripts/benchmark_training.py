"""Measure the time and peak memory of a training step, and with --data how fast training samples are loaded.

  python -m scripts.benchmark_training [--network lite] [--device NAME] [--amp bf16] [--batch_size 4] [--size 384]

Steps run on random pixels. Stages 1 to 3 train on the same kind of sample, so they share a row.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from model.defaults import INFERENCE_DEFAULTS, STRIDE
from util.cli import InputError, positive_int, run


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

    from scripts.timing import in_new_process, time_loading, time_step
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
