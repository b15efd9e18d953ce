"""Count how often a point of an object lands on that object in a later frame: correspondences, measured.

  python -m scripts.benchmark_correspondence --davis ../DAVIS/2016

From the first frame of each sequence to each of the later ones named by --to, about --points points are taken, evenly
spread over the object, and looked for three ways: by the network's correspondences; at the same place; and by
colour, in the cell of 16x16 pixels (the network's own) whose mean is the most like that of the point's cell. Printed is
the share that lands on the object, by sequence.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dataset.davis import davis_2016
from dataset.image_io import fit_mask
from dataset.video import Video
from inference.correspondence_viewer import correspond
from model.checkpoint import load_network
from model.defaults import PUBLISHED_WEIGHTS, STRIDE, default_weights
from model.network import PropagationNetwork
from model.padding import center_of_location, location_of_pixel, padding
from util.cli import InputError, non_negative_int, positive_int, run
from util.device import allow_tf32, pick_device

Find = Callable[[int, int], tuple[int, int]]      # a source pixel (x, y) -> the target pixel that it is


class Shares(NamedTuple):
    """Of the points, those that land on their object, 0 to 1."""
    network: float
    same_place: float
    colour: float
    chance: float       # of a point put anywhere: the share of the frame that the objects cover


def spread_points(mask: np.ndarray, count: int, seed: int) -> list[tuple[int, int]]:
    """About ``count`` pixels (x, y) of a mask (H, W): those on a regular grid, whose place is drawn."""
    step = max((np.count_nonzero(mask) / count) ** 0.5, 1.0)
    left, top = np.random.default_rng(seed).uniform(0, step, 2)
    rows, columns = (np.arange(start, side, step).astype(int) for start, side in zip((top, left), mask.shape, strict=True))
    return [(int(x), int(y)) for y in rows for x in columns if mask[y, x]]


def find_by_colour(source: np.ndarray, target: np.ndarray) -> Find:
    """Of two pictures (H, W, 3): to the middle of the target's cell whose mean colour is nearest."""
    def cells(picture: np.ndarray) -> torch.Tensor:
        """(h, w, 3) means over what each cell has of the picture."""
        pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
        zeros = padding(*picture.shape[:2])
        sums, parts = (F.avg_pool2d(F.pad(each, zeros), STRIDE) for each in (pixels, torch.ones_like(pixels[:, :1])))
        return (sums / parts)[0].permute(1, 2, 0)

    ours, theirs = cells(source), cells(target)

    def find(x: int, y: int) -> tuple[int, int]:
        colour = ours[location_of_pixel(x, y, *source.shape[:2])]
        row, column = divmod(int((theirs - colour).square().sum(-1).argmin()), theirs.shape[1])
        return center_of_location(row, column, *target.shape[:2])
    return find


def share_landing(find: Find, points: Sequence[tuple[int, int]], source: np.ndarray, target: np.ndarray) -> float:
    """The share of the points that land on the object they are on; ``source``, ``target``: labels (H, W)."""
    landed = 0
    for x, y in points:
        to_x, to_y = find(x, y)
        landed += target[to_y, to_x] == source[y, x]
    return landed / len(points)


def compare(network: PropagationNetwork, frames: Sequence[np.ndarray], masks: Sequence[np.ndarray], count: int,
            seed: int) -> Shares:
    """Look for about ``count`` points of the first frame's objects in the second frame, in each of the ways.

    Args:
        frames: two of one size, (H, W, 3) uint8.
        masks: their labels, (H, W), each with an object.
    """
    points = spread_points(masks[0], count, seed)
    ways = correspond(network, *frames).find, lambda x, y: (x, y), find_by_colour(*frames)
    chance = float((masks[1] > 0).mean())
    return Shares(*(share_landing(find, points, *masks) for find in ways), chance)


def compare_video(network: PropagationNetwork, video: Video, to: Sequence[int], count: int, seed: int) -> list[Shares]:
    """`compare` from the first frame to each of those ``to``, without those that the video or its object lacks."""
    chosen = [0, *(index for index in to if index < len(video.frames.names))]
    frames, masks = [], []
    for index in chosen:
        frames.extend(video.frames.read([index], workers=0))
        path = video.ground_truth / f"{video.frames.names[index]}.png"
        masks.append(fit_mask(path, video.labels(path), *frames[-1].shape[:2]))
    if not masks[0].any():
        return []
    return [compare(network, (frames[0], frame), (masks[0], mask), count, seed)
            for frame, mask in zip(frames[1:], masks[1:], strict=True) if mask.any()]


def table(results: dict[str, list[Shares]]) -> str:
    """In percent: each sequence's mean over its pairs, then the mean of the sequences."""
    width = max(map(len, (*results, "mean")))
    means = {name: np.mean(shares, 0) for name, shares in results.items()}
    rows = [*means.items(), ("mean", np.mean(list(means.values()), 0))]
    return "\n".join([f"{'sequence':<{width}}  network  same place  colour  by chance",
                      *(f"{name:<{width}}  {100 * shares[0]:7.1f}  {100 * shares[1]:10.1f}  {100 * shares[2]:6.1f}"
                        f"  {100 * shares[3]:9.1f}" for name, shares in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--davis", type=Path, default=Path("../DAVIS/2016"), metavar="DIR",
        help="the DAVIS 2016 folder, or one laid out like it (default: %(default)s)")
    add("--model", type=Path, default=default_weights(), metavar="FILE",
        help=f"default: {PUBLISHED_WEIGHTS} if it is there, else the lite network that comes with the code")
    add("--to", type=positive_int, nargs="+", default=[5, 10, 20], metavar="N",
        help="the later frames, counted from 0 (default: 5 10 20)")
    add("--points", type=positive_int, default=100, metavar="N", help="of a pair, about (default: %(default)s)")
    add("--seed", type=non_negative_int, default=0, help="of the points (default: %(default)s)")
    add("--device", metavar="NAME", help="cpu, cuda, mps (default: CUDA if there is a GPU, else MPS, else the CPU)")
    args = parser.parse_args()
    videos = [video for video in davis_2016(args.davis) if video.ground_truth is not None]
    allow_tf32(False)
    network = load_network(args.model, pick_device(args.device))
    print(f"network: {network.variant} ({args.model})")
    results = {video.name: compare_video(network, video, args.to, args.points, args.seed) for video in videos}
    results = {name: shares for name, shares in results.items() if shares}
    if not results:
        raise InputError(f"{args.davis}: no video has true masks of all frames and an object in two that are compared")
    print(table(results))


if __name__ == "__main__":
    run(main)
