"""Propagation through a user's clip: forward, backward or both."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from dataset.image_io import read_mask, write_mask
from dataset.video import Video
from inference.propagation import Prediction, PropagationConfig, Timer, propagate
from model.network import PropagationNetwork
from util.parallel import map_in_threads


def frame_ranges(video: Video, direction: str) -> tuple[range, range]:
    """The frame indices of the forward pass from the first input mask, and of the backward pass from the last one."""
    first, last, end = min(video.masks), max(video.masks), len(video.frames.names)
    forward = range(first, end) if direction != "backward" else range(0)
    backward = range(last, -1, -1) if direction == "backward" or (direction == "both" and last > 0) else range(0)
    return forward, backward


def propagate_clip(network: PropagationNetwork, video: Video, config: PropagationConfig, direction: str, folder: Path,
                   palette: bytes, timer: Timer, on_frame: Callable[[], None]) -> None:
    """Write the masks of all frames of the passes in ``direction`` to ``folder/<frame>.png``.

    With both passes, each frame gets the result of the nearest input mask (of two equally near ones, the earlier).
    Objects that only the other pass knows are added where that result is background. Calls ``on_frame`` after each one.
    """
    known: dict[int, list[int]] = {}            # the labels of the forward pass by frame

    def write(result: Prediction) -> None:
        index, label_map, labels, _ = result
        path = folder / f"{video.frames.names[index]}.png"
        if index in known:                      # this is the backward pass
            forward_map = read_mask(path).astype(np.uint8)
            if forward_is_nearer(video.masks, index):
                label_map = merge(forward_map, label_map, known[index])
            else:
                label_map = merge(label_map, forward_map, labels)
        known[index] = labels
        write_mask(path, label_map, palette)

    for indices in frame_ranges(video, direction):
        for _ in map_in_threads(write, propagate(config.new_core(network), video, config, indices, timer), workers=1):
            on_frame()


def forward_is_nearer(masks: Iterable[int], index: int) -> bool:
    """Whether a frame gets the result of the forward pass: its nearest input mask is not after it."""
    return min(masks, key=lambda other: (abs(other - index), other)) <= index


def merge(mask: np.ndarray, other: np.ndarray, known: list[int]) -> np.ndarray:
    """``mask`` (H, W), with the labels of ``other`` that are not ``known`` where it is background."""
    return np.where((mask == 0) & ~np.isin(other, known), other, mask)
