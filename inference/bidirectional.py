"""Propagation through a user's clip: forward, backward or both."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from dataset.image_io import read_mask, write_mask
from dataset.video import Video
from inference.propagation import PropagationConfig, Timer, propagate
from model.network import PropagationNetwork
from util.files import Writer


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
    Objects that only the other pass knows are added where that result is background.

    Args:
        on_frame: called after each frame.
    """
    forward, backward = frame_ranges(video, direction)
    forward_labels: dict[int, list[int]] = {}
    with Writer() as writer:
        for index, label_map, labels in propagate(network, video, config, forward, timer):
            forward_labels[index] = labels
            writer.submit(write_mask, folder / f"{video.frames.names[index]}.png", label_map, palette)
            on_frame()
    with Writer() as writer:
        for index, label_map, labels in propagate(network, video, config, backward, timer):
            path = folder / f"{video.frames.names[index]}.png"
            if index in forward_labels:
                forward_map = read_mask(path).astype(np.uint8)
                if nearest_is_earlier(index, video.masks):
                    label_map = merge(forward_map, label_map, forward_labels[index])
                else:
                    label_map = merge(label_map, forward_map, labels)
            writer.submit(write_mask, path, label_map, palette)
            on_frame()


def merge(mask: np.ndarray, other: np.ndarray, known: list[int]) -> np.ndarray:
    """``mask`` (H, W), with the labels of ``other`` that are not ``known`` where it is background."""
    return np.where((mask == 0) & ~np.isin(other, known), other, mask)


def nearest_is_earlier(index: int, annotated: Iterable[int]) -> bool:
    """Whether the annotated frame nearest to a frame is that frame or before it; True if one after it is as near."""
    return min(annotated, key=lambda other: (abs(other - index), other)) <= index
