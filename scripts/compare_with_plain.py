"""Compare the published network with a plain implementation of it: speed, memory and results.

  python -m scripts.compare_with_plain [--model FILE] [--device NAME] [--amp] [--tf32] [--objects 1 3]

Both propagate masks through a drawn clip, in turn and each time in a new process. Prints the seconds per frame (median
of the runs, without the first frame), the peak memory of the process, or of the GPU if it is used, and the largest
difference between probabilities of the last frame. The plain implementation (scripts/plain_network.py) computes every
object by itself and all affinities at once, with PyTorch's convolutions and without automatic mixed precision. TF32, if
allowed, is used by both.
"""
from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from inference.arguments import add_device_argument, add_precision_arguments, weights_file
from model import defaults
from util.cli import InputError, at_least, positive_int, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=weights_file, default=defaults.published_weights(), metavar="FILE",
        help=f"weights of the published network (default: {defaults.PUBLISHED_WEIGHTS} if it exists, else random "
             f"weights)")
    add_device_argument(parser)
    add_precision_arguments(parser)
    parser.set_defaults(amp=False)
    add("--objects", type=positive_int, nargs="+", default=[1, 3], metavar="K",
        help="numbers of objects (default: 1 3)")
    add("--frames", type=at_least(2), default=8, metavar="T", help="frames of the clip (default: %(default)s)")
    add("--size", type=at_least(defaults.STRIDE), nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"),
        help="frame size in pixels, rounded down to multiples of 16 (default: 480 854)")
    add("--runs", type=positive_int, default=3, metavar="N", help="runs of each (default: %(default)s)")
    args = parser.parse_args()
    if max(args.objects) > 255:
        raise InputError(f"--objects {max(args.objects)}: must be at most 255")
    import torch

    from model.checkpoint import read_network, save
    from model.variants import published_network
    from scripts.timing import in_new_process, time_clip
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            print(f"{defaults.PUBLISHED_WEIGHTS} does not exist: random weights, which are as fast\n")
            args.model = Path(folder) / "random.pth"
            torch.manual_seed(0)
            save(published_network().state_dict(), args.model)
        network = read_network(args.model)
        if network.variant != "published" or network.single_object:
            raise InputError(f"{args.model}: not weights of the published network for several objects")
        print("| objects | plain | peak MB | this project | peak MB | times as fast | difference |\n"
              "| --- | --- | --- | --- | --- | --- | --- |")
        for objects in args.objects:
            runs = [[in_new_process(time_clip, args, objects, plain) for plain in (True, False)]
                    for _ in range(args.runs)]
            (plain, plain_peak, expected), (ours, our_peak, found) = (
                (statistics.median(run.seconds for run in side), max(run.megabytes for run in side),
                 side[0].probabilities) for side in zip(*runs, strict=True))
            print(f"| {objects} | {plain:.3g} | {plain_peak:.0f} | {ours:.3g} | {our_peak:.0f} | {plain / ours:.2f} | "
                  f"{abs(expected - found).max():.1g} |", flush=True)


if __name__ == "__main__":
    run(main)
