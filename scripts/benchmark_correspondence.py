"""Measure how often a point of an object is matched to the same object in a later frame.

  python -m scripts.benchmark_correspondence --davis ../DAVIS/2016

About --points points on the objects of each sequence's first frame are matched to the later frames of --to, by three
methods: the network's correspondences; the same place; and the stride-16 location of the most similar mean colour.
Prints for each sequence the percentage of points matched to their object.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from inference.arguments import add_network_arguments
from util.cli import InputError, non_negative_int, positive_int, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path, default=Path("../DAVIS/2016"), metavar="DIR",
                        help="the DAVIS 2016 folder, or a folder of the same layout (default: %(default)s)")
    parser.add_argument("--to", type=positive_int, nargs="+", default=[5, 10, 20], metavar="N",
                        help="later frames, counted from 0 (default: 5 10 20)")
    parser.add_argument("--points", type=positive_int, default=100, metavar="N",
                        help="approximate number of points per pair of frames (default: %(default)s)")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="of the points (default: %(default)s)")
    add_network_arguments(parser)
    args = parser.parse_args()
    from dataset.davis import davis_2016
    from inference.correspondence_accuracy import compare_methods, table
    from model.checkpoint import load_network
    from util.device import allow_tf32, pick_device
    videos = [video for video in davis_2016(args.davis) if video.ground_truth is not None]
    allow_tf32(False)
    network = load_network(args.model, pick_device(args.device))
    print(f"network: {network.variant} ({args.model})")
    results = {video.name: compare_methods(network, video, args.to, args.points, args.seed) for video in videos}
    results = {name: accuracies for name, accuracies in results.items() if accuracies}
    if not results:
        raise InputError(f"{args.davis}: no video has ground truth for all frames and an object in two compared frames")
    print(table(results))


if __name__ == "__main__":
    run(main)
