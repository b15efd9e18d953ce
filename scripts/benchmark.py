"""Measure the time per frame, the share of each part of the computation, and the peak memory.

  python -m scripts.benchmark [--model FILE] [--device NAME] [--amp] [--tf32] [--objects 1 3 5] [--memory 10 50 100]

Prints a row for each number of objects and of frames in memory: the median seconds per frame on random pixels, the peak
memory and the parts. For the published network it also prints the speed relative to a square float32 matrix product,
measured alternately with the frames. This ratio counts the operations of the original implementation's convolutions,
whatever is really computed, so it compares machines and implementations: twice the ratio is twice as fast.
"""
from __future__ import annotations

import argparse

from inference.arguments import MAX_SIDE, add_network_arguments
from model.defaults import STRIDE
from util.cli import InputError, positive_int, run

# Multiply-adds of the original implementation per stride-16 location, for the frame and for each object.
ORIGINAL_FRAME, ORIGINAL_OBJECT = 128e9 / 1620, 106e9 / 1620
MAX_MEMORY_FRAMES = 10_000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_network_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 on NVIDIA GPUs")
    parser.add_argument("--objects", type=positive_int, nargs="+", default=[1, 3, 5], metavar="K",
                        help="default: %(default)s")
    parser.add_argument("--memory", type=positive_int, nargs="+", default=[10, 50, 100], metavar="T",
                        help="frames in memory (default: %(default)s)")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"),
                        help="pixels (default: %(default)s)")
    parser.add_argument("--repeats", type=positive_int, default=7, metavar="N",
                        help="timed frames (default: %(default)s)")
    args = parser.parse_args()
    if min(args.size) < STRIDE or max(args.size) > MAX_SIDE:
        raise InputError(f"--size {args.size[0]} {args.size[1]}: both sides need {STRIDE} to {MAX_SIDE} pixels")
    if max(args.objects) >= min(256, args.size[1]):
        raise InputError(f"--objects {max(args.objects)}: must be at most 255, and less than the width")
    if not 2 <= min(args.memory) <= max(args.memory) <= MAX_MEMORY_FRAMES:
        raise InputError(f"--memory: must be 2 (the first frame and the previous one) to {MAX_MEMORY_FRAMES}")
    return args


def main() -> None:
    args = parse()
    import torch

    from scripts.timing import in_new_process, time_frames
    from util.device import pick_device
    device = pick_device(args.device)
    locations = -(-args.size[0] // STRIDE) * -(-args.size[1] // STRIDE)
    timings = ((objects, memory, in_new_process(time_frames, args, objects, memory))
               for objects in args.objects for memory in args.memory)
    for number, (objects, memory, timing) in enumerate(timings):
        if number == 0:
            print(f"{timing.variant} network, {device}{', 16 bits' * args.amp}"
                  f"{', TF32' * (args.tf32 and device.type == 'cuda')}, PyTorch {torch.__version__}, "
                  f"{torch.get_num_threads()} threads; matrix product {timing.matrix_product / 1e9:.0f} GFLOP/s\n\n"
                  f"| objects | in memory | seconds a frame | frames/s | of a matrix product | peak MB | parts |\n"
                  + "| --- " * 7 + "|")
        original = 2 * locations * (ORIGINAL_FRAME + objects * ORIGINAL_OBJECT)
        ratio = f"{original / timing.seconds / timing.matrix_product:.2f}" if timing.variant == "published" else ""
        parts = ", ".join(f"{name} {100 * part:.0f} %" for name, part in timing.parts.items())
        print(f"| {objects} | {memory} | {timing.seconds:.3g} | {1 / timing.seconds:.2f} | {ratio} | "
              f"{timing.megabytes:.0f} | {parts} |", flush=True)


if __name__ == "__main__":
    run(main)
