"""How often a point of an object is matched to the same object in a later frame."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dataset.image_io import fit_mask
from dataset.video import Video
from inference.correspondence_viewer import correspond
from model.defaults import STRIDE
from model.network import PropagationNetwork
from model.padding import center_of_location, location_of_pixel, padding

Match = Callable[[int, int], tuple[int, int]]      # source pixel (x, y) -> target pixel (x, y)


class Accuracies(NamedTuple):
    """Ratios of points that are matched to their object, 0 to 1, by method."""
    network: float
    same_place: float
    colour: float
    chance: float       # a random target pixel: the part of the frame that objects cover


def sample_points(mask: np.ndarray, count: int, seed: int) -> list[tuple[int, int]]:
    """About ``count`` pixels (x, y) of a mask (H, W), on a regular grid with a random offset."""
    step = max((np.count_nonzero(mask) / count) ** 0.5, 1.0)
    rows, columns = (np.arange(start, side, step).astype(int) for start, side
                     in zip(np.random.default_rng(seed).uniform(0, step, 2)[::-1], mask.shape, strict=True))
    return [(int(x), int(y)) for y in rows for x in columns if mask[y, x]]


def match_by_colour(source: np.ndarray, target: np.ndarray) -> Match:
    """Matches points of two frames (H, W, 3) by the mean colours of stride-16 locations."""
    def mean_colours(frame: np.ndarray) -> torch.Tensor:
        """(h, w, 3), padding excluded."""
        pixels = torch.tensor(frame).permute(2, 0, 1)[None].float()
        zeros = padding(*frame.shape[:2])
        sums, areas = (F.avg_pool2d(F.pad(part, zeros), STRIDE) for part in (pixels, torch.ones_like(pixels[:, :1])))
        return (sums / areas)[0].permute(1, 2, 0)
    source_colours, target_colours = mean_colours(source), mean_colours(target)

    def match(x: int, y: int) -> tuple[int, int]:
        colour = source_colours[location_of_pixel(x, y, *source.shape[:2])]
        nearest = int((target_colours - colour).square().sum(-1).argmin())
        return center_of_location(*divmod(nearest, target_colours.shape[1]), *target.shape[:2])
    return match


def accuracy(match: Match, points: Sequence[tuple[int, int]], source: np.ndarray, target: np.ndarray) -> float:
    """The ratio of points that are matched to their object; ``source``, ``target``: labels (H, W)."""
    return float(np.mean([target[match(x, y)[::-1]] == source[y, x] for x, y in points]))


def compare_methods(network: PropagationNetwork, video: Video, targets: Sequence[int], count: int,
                    seed: int) -> list[Accuracies]:
    """Match about ``count`` points of the first frame in later frames, by each method.

    Args:
        video: with ground truth.
        targets: indices of the later frames. Those without an object, or after the video's end, are left out.
        seed: of the points.
    """
    frames, masks = [], []
    for index in (0, *(index for index in targets if index < len(video.frames.names))):
        frames.extend(video.frames.read([index], workers=0))
        path = video.ground_truth / f"{video.frames.names[index]}.png"
        masks.append(fit_mask(path, video.labels(path), *frames[-1].shape[:2]))
    points = sample_points(masks[0], count, seed)
    results = []
    for frame, mask in zip(frames[1:], masks[1:], strict=True):
        if points and mask.any():
            matches = correspond(network, frames[0], frame).find, lambda x, y: (x, y), match_by_colour(frames[0], frame)
            results.append(Accuracies(*(accuracy(match, points, masks[0], mask) for match in matches),
                                      float((mask > 0).mean())))
    return results


def table(results: dict[str, list[Accuracies]]) -> str:
    """Percentages: the mean of each sequence over its pairs, and the mean of the sequences."""
    width = max(map(len, (*results, "mean")))
    means = {name: np.mean(accuracies, 0) for name, accuracies in results.items()}
    rows = [*means.items(), ("mean", np.mean(list(means.values()), 0))]
    return "\n".join([f"{'sequence':<{width}}  network  same place  colour  by chance",
                      *(f"{name:<{width}}  {100 * row[0]:7.1f}  {100 * row[1]:10.1f}  {100 * row[2]:6.1f}"
                        f"  {100 * row[3]:9.1f}" for name, row in rows)])
