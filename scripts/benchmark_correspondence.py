"""Measure how often a point of an object is matched to the object in a later frame.

  python -m scripts.benchmark_correspondence --davis ../DAVIS/2016

Matches 100 random points on the object of each video's first frame to the frames of --to. Prints the percentage that is
matched to the object, and two baselines: the percentage of the points that are on the object at the same place, and of
all pixels that are on the object ("by chance").
"""
from __future__ import annotations

import argparse
from pathlib import Path

from inference.arguments import add_network_arguments
from util.cli import InputError, positive_int, run

POINTS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path, default=Path("../DAVIS/2016"), metavar="DIR",
                        help="the DAVIS 2016 folder, or a folder of the same layout (default: %(default)s)")
    parser.add_argument("--to", type=positive_int, nargs="+", default=[5, 10, 20], metavar="N",
                        help="later frames, counted from 0 (default: 5 10 20)")
    add_network_arguments(parser)
    args = parser.parse_args()
    import numpy as np

    from dataset.davis import davis_2016
    from dataset.image_io import fit_mask
    from inference.correspondence_viewer import correspond
    from model.checkpoint import load_network
    from util.device import allow_tf32, pick_device
    allow_tf32(False)
    network, means = load_network(args.model, pick_device(args.device)), {}
    for video in [video for video in davis_2016(args.davis) if video.ground_truth]:
        indices = [0, *(index for index in args.to if index < len(video.frames.names))]
        source, *targets = video.frames.read(indices, workers=0)
        paths = [video.ground_truth / f"{video.frames.names[index]}.png" for index in indices]
        source_mask, *masks = (fit_mask(path, video.labels(path), *source.shape[:2]) > 0 for path in paths)
        points = np.random.default_rng(0).permutation(np.argwhere(source_mask))[:POINTS]
        ratios = []
        for target, mask in zip(targets, masks, strict=True):
            if len(points) and mask.any():
                find = correspond(network, source, target).find
                matched = np.mean([mask[find(x, y)[::-1]] for y, x in points])
                ratios.append([matched, mask[tuple(points.T)].mean(), mask.mean()])
        if ratios:
            means[video.name] = np.mean(ratios, 0)
    if not means:
        raise InputError(f"{args.davis}: no video has ground truth and an object in two compared frames")
    means["mean"] = np.mean(list(means.values()), 0)
    print("| video | network | same place | by chance |\n| --- | --- | --- | --- |")
    for name, (matched, same_place, chance) in means.items():
        print(f"| {name} | {100 * matched:.1f} | {100 * same_place:.1f} | {100 * chance:.1f} |")


if __name__ == "__main__":
    run(main)
