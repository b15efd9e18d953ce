"""Measure the seconds per frame and the peak memory of propagation.

  python -m scripts.benchmark [--model FILE] [--device NAME] [--amp | --no_amp] [--tf32] [--objects 1 3 5]
                              [--memory 10 50 100]

Prints a row for each number of objects and of frames in memory: the median seconds per frame, on random pixels, and the
peak memory of the process, or of the GPU if it is used.
"""
from __future__ import annotations

import argparse
from itertools import product

from inference.arguments import add_network_arguments, add_precision_arguments
from model.defaults import STRIDE
from util.cli import InputError, at_least, positive_int, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_network_arguments(parser)
    add = parser.add_argument
    add_precision_arguments(parser)
    add("--objects", type=positive_int, nargs="+", default=[1, 3, 5], metavar="K",
        help="numbers of objects (default: 1 3 5)")
    add("--memory", type=at_least(2), nargs="+", default=[10, 50, 100], metavar="T",
        help="numbers of memory frames (default: 10 50 100)")
    add("--size", type=at_least(STRIDE), nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"),
        help="frame size in pixels (default: 480 854)")
    add("--repeats", type=positive_int, default=7, metavar="N", help="timed frames (default: %(default)s)")
    args = parser.parse_args()
    if max(args.objects) >= min(256, args.size[1]):
        raise InputError(f"--objects {max(args.objects)}: must be at most 255, and less than the width")
    from inference.propagation import default_amp, load_for_propagation
    from scripts.timing import in_new_process, time_frames
    from util.device import pick_device
    device = pick_device(args.device)
    args.amp = default_amp(load_for_propagation(args.model, device)) if args.amp is None else args.amp
    print(f"{args.model} on {device}{', 16 bits' * args.amp}{', TF32' * args.tf32}\n\n"
          f"| objects | in memory | seconds per frame | peak MB |\n| --- | --- | --- | --- |")
    for objects, memory in product(args.objects, args.memory):
        seconds, megabytes = in_new_process(time_frames, args, objects, memory)
        print(f"| {objects} | {memory} | {seconds:.3g} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    run(main)
