"""Training samples whose memory contains predicted masks, as at inference.

In a sample of consecutive frames, the first frame with its ground truth is always near. At inference it may be far
away, and errors in the memory accumulate. Rollouts are the masks that a network predicted for whole training videos.
Samples from them teach a network to correct such errors, and to recognise what the first frame does not show.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dataset.sampling import ROLLOUT_MEMORY, TrainingSample, sample_rollout, shortest_rollout
from dataset.vos_dataset import MAX_TRIES, VOSDataset, draw, draw_objects
from util.cli import InputError, pluralize, warn

PASSES = {"forward": 1, "backward": -1}         # folders of rollouts, and the order of their frames
ROLLOUT_SHARE, CUT_SHARE, ADD_SHARE = 0.7, 0.1, 0.25


class RolloutDataset(VOSDataset):
    """Videos with rollouts: 7 of 10 samples take their memory from one.

    Such a sample consists of the first frame of a rollout with its ground truth, three later memory frames with
    predicted masks, and ``length`` - 3 frames, at least one, to segment right after them. In some of the predicted
    masks, a part of the object is removed or a false part is added.

    Args:
        videos, max_distance: see `VOSDataset`.
        rollouts: folder written by `scripts.make_rollouts`.
        options: further arguments of `VOSDataset`.

    Raises:
        InputError: there is no rollout of any of the videos. Those without one are named in a warning and sampled as
            by `VOSDataset`.
    """

    def __init__(self, videos: Sequence[Sequence[tuple[Path, Path]]], max_distance: Callable[[int], int],
                 rollouts: Path, **options: int | float):
        super().__init__(videos, max_distance, **options)
        self.segmented = max(1, self.length - ROLLOUT_MEMORY)
        if not rollouts.is_dir():
            raise InputError(f"{rollouts}: no such folder")
        shortest = shortest_rollout(self.segmented)
        self.rollouts = [[files for files in rollouts_of(video, rollouts) if len(files) >= shortest]
                         for video in videos]
        missing = [video[0][0].parent for video, found in zip(videos, self.rollouts, strict=True) if not found]
        if len(missing) == len(videos):
            raise InputError(f"{rollouts}: no rollouts of these videos with at least {shortest} frames; make them with "
                             f"`python -m scripts.make_rollouts`")
        if missing:
            warn(f"{rollouts}: {pluralize(len(missing), 'video')} without a rollout of at least {shortest} frames, the "
                 f"first: {missing[0]}")

    def sample(self, index: int, epoch: int) -> TrainingSample:
        """Return a sample, drawn from the global random state.

        Raises:
            InputError: a file cannot be used, or no mask of the video has an object.
        """
        if self.rollouts[index] and torch.rand(()) < ROLLOUT_SHARE:
            rollout = self.rollouts[index][draw(0, len(self.rollouts[index]) - 1)]
            for _ in range(MAX_TRIES):
                sample = self._rollout_sample(rollout)
                if sample:
                    return sample
        return super().sample(index, epoch)

    def _rollout_sample(self, rollout: Sequence[tuple[Path, Path, Path]]) -> TrainingSample | None:
        """Return a sample from the (frame, mask, predicted mask) files; None if its first crop has no object."""
        chosen = sample_rollout(len(rollout), draw, self.segmented)
        frames, masks = self._load([rollout[position] for position in chosen])
        labels, predictions = masks[:, 0], masks[1:1 + ROLLOUT_MEMORY, 1]
        candidates = self._candidates(labels)
        if not candidates:
            return None
        objects = draw_objects(candidates)
        predicted = torch.zeros(ROLLOUT_MEMORY, 2, *labels.shape[1:])
        for number, label in enumerate(objects):
            predicted[:, number] = disturb(predictions == label, labels[1:1 + ROLLOUT_MEMORY] == label)
        predicted[:, 1] *= 1 - predicted[:, 0]          # false parts can overlap
        return {**self._sample(frames, labels, objects), "predicted": predicted}


def rollouts_of(video: Sequence[tuple[Path, Path]], folder: Path) -> list[list[tuple[Path, Path, Path]]]:
    """Return the (frame, mask, predicted mask) files of each rollout of a video, in its order."""
    found = []
    for name, step in PASSES.items():
        masks = folder / name / video[0][0].parent.name
        found.append([(frame, mask, masks / mask.name) for frame, mask in video[::step]
                      if (masks / mask.name).is_file()])
    return found


def disturb(masks: Tensor, truth: Tensor) -> Tensor:
    """Return predicted masks of an object, (P, H, W) booleans like its ground truth, some with further errors."""
    chance = torch.rand(())
    if chance < CUT_SHARE:
        first = draw(0, 1)                  # the earliest mask can stay as it is
        return torch.cat([masks[:first], remove_part(masks[first:], truth[first:])])
    if chance < CUT_SHARE + ADD_SHARE:
        first = draw(0, len(masks) - 1)
        add = add_spots if draw(0, 1) else add_copy
        return torch.cat([masks[:first], add(masks[first:], truth[first:])])
    return masks


def remove_part(masks: Tensor, truth: Tensor) -> Tensor:
    """Return masks (P, H, W) without the part of the object on one side of a line, or with holes in the same places."""
    y, x = pixel_grid(masks)
    angle, share = 2 * math.pi * torch.rand(()), 0.25 + 0.55 * torch.rand(())
    holes = torch.rand(draw(1, 3) if draw(0, 2) == 0 else 0, 3)
    along, result = x * angle.cos() + y * angle.sin(), masks.clone()
    for mask, object_ in zip(result, truth, strict=True):
        if not object_.any():
            continue
        if not len(holes):
            mask &= along <= along[object_].quantile(share)
            continue
        low, high = object_.nonzero().aminmax(dim=0)
        for row, column, size in holes:
            center = low + (high - low) * torch.stack([row, column])
            mask &= ~ellipse(y, x, center, (high - low) * (0.08 + 0.2 * size) + 2)
    return result


def add_spots(masks: Tensor, truth: Tensor) -> Tensor:
    """Return masks (P, H, W) with one to three small ellipses outside of the object, in the same places."""
    y, x = pixel_grid(masks)
    size = torch.tensor(masks.shape[1:])
    spots = [ellipse(y, x, size * spot[:2], size * (0.015 + 0.045 * spot[2:])) for spot in torch.rand(draw(1, 3), 4)]
    return masks | (torch.stack(spots).any(0) & ~truth)


def pixel_grid(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row and the column of each pixel of masks (..., H, W)."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in masks.shape[-2:]), indexing="ij")
    return rows, columns


def ellipse(y: Tensor, x: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """Return where pixels are in an ellipse, whose centre and radii are rows and columns."""
    return ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 < 1


def add_copy(masks: Tensor, truth: Tensor) -> Tensor:
    """Return masks (P, H, W) with an upper part of the object's own mask repeated elsewhere, outside of the object."""
    height, width = masks.shape[1:]
    angle, distance, share = 2 * math.pi * torch.rand(()), 0.3 + 0.5 * torch.rand(()), 0.3 + 0.7 * torch.rand(())
    down, right = round(float(angle.sin() * distance) * height), round(float(angle.cos() * distance) * width)
    copies = torch.zeros_like(masks)
    for copy, mask in zip(copies, masks, strict=True):
        if mask.any():
            rows = mask.any(1).nonzero()
            part = mask & (torch.arange(height)[:, None] <= rows.float().quantile(share))
            copy[max(0, down):height + min(0, down), max(0, right):width + min(0, right)] = \
                part[max(0, -down):height + min(0, -down), max(0, -right):width + min(0, -right)]
    return masks | (copies & ~truth)
