"""The forward and the backward pass through a clip, and how their masks are merged."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dataset.video import Video


def frame_ranges(video: Video, direction: str) -> tuple[range, range]:
    """The frame indices of the forward pass from the first input mask, and of the backward pass from the last one."""
    first, last, end = min(video.masks), max(video.masks), len(video.frames.names)
    forward = range(first, end) if direction != "backward" else range(0)
    backward = range(last, -1, -1) if direction == "backward" or (direction == "both" and last > 0) else range(0)
    return forward, backward


def forward_is_nearer(masks: Iterable[int], index: int) -> bool:
    """Whether a frame gets the result of the forward pass: its nearest input mask is not after it."""
    return min(masks, key=lambda other: (abs(other - index), other)) <= index


def merge(mask: np.ndarray, other: np.ndarray, known: list[int]) -> np.ndarray:
    """``mask`` (H, W), with the labels of ``other`` that are not ``known`` where it is background."""
    return np.where((mask == 0) & ~np.isin(other, known), other, mask)
