"""Measure the seconds and the peak memory of a training step, on random pixels.

  python -m scripts.benchmark_training [--network lite] [--device NAME] [--amp bf16] [--batch_size 4] [--size 384]

Stages 1 and 2 train on the same kind of sample, so they share a row.
"""
from __future__ import annotations

import argparse

from model.defaults import INFERENCE_DEFAULTS, STRIDE
from util.cli import InputError, at_least, positive_int, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--network", choices=INFERENCE_DEFAULTS, default="published", help="default: %(default)s")
    add("--device", metavar="NAME", help="default: as train.py")
    add("--amp", nargs="?", const="bf16", choices=["bf16", "fp16"],
        help="automatic mixed precision (default: off; --amp alone: bf16)")
    add("--batch_size", type=positive_int, default=4, metavar="N", help="default: %(default)s")
    add("--size", type=positive_int, default=384, metavar="PIXELS", help="default: %(default)s")
    add("--frames", type=at_least(2), default=3, metavar="N", help="frames per sample (default: %(default)s)")
    add("--repeats", type=positive_int, default=5, metavar="N", help="timed steps (default: %(default)s)")
    args = parser.parse_args()
    if args.size % STRIDE:
        raise InputError(f"--size {args.size}: must be a multiple of {STRIDE}")
    from scripts.timing import in_new_process, time_step
    from util.device import pick_device
    print(f"{args.network} network on {pick_device(args.device)}, {args.amp or 'float32'}, "
          f"batch {args.batch_size}, {args.frames} frames of {args.size} pixels\n\n"
          f"| stage | objects | seconds per step | samples/s | peak MB |\n| --- | --- | --- | --- | --- |")
    for stage, objects in (("0", 1), ("1, 2", 2)):
        seconds, megabytes = in_new_process(time_step, args, objects)
        rate = args.batch_size / seconds
        print(f"| {stage} | {objects} | {seconds:.3g} | {rate:.3g} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    run(main)
