"""Propagation through a user's clip, forward, backward or both ways."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataset.image_io import read_mask, write_mask
from dataset.video import Video
from inference.propagation import PropagationConfig, Timer, propagate
from model.network import PropagationNetwork
from util.files import Writer

DIRECTIONS = ("forward", "backward", "both")


def frame_ranges(video: Video, direction: str) -> tuple[range, range]:
    """The frames to go through forward, and then those backward, from the outermost given masks."""
    first, last, end = min(video.masks), max(video.masks), len(video.frames.names)
    forward = range(first, end) if direction != "backward" else range(0)
    backward = range(last, -1, -1) if direction == "backward" or (direction == "both" and last > 0) else range(0)
    return forward, backward


def propagate_clip(network: PropagationNetwork, video: Video, options: PropagationConfig, direction: str, folder: Path,
                   palette: bytes, clock: Timer, done: Callable[[], None]) -> None:
    """Write a mask for every frame that ``direction`` reaches to ``folder/<frame>.png``.

    Both ways: each frame takes the result that comes from the nearest given mask, the earlier one of two as near.
    Objects that only the other way knows (given before or after) fill what is left as background.

    Args:
        done: called after each frame.
    """
    names = video.frames.names
    forward, backward = frame_ranges(video, direction)
    known: dict[int, list[int]] = {}
    with Writer() as writer:
        for index, label_map, labels in propagate(network, video, options, forward, clock):
            known[index] = labels
            writer.submit(write_mask, folder / f"{names[index]}.png", label_map, palette)
            done()
    if not backward:
        return
    with Writer() as writer:
        for index, label_map, labels in propagate(network, video, options, backward, clock):
            path = folder / f"{names[index]}.png"
            if index in known:
                earlier = read_mask(path).astype(np.uint8)
                if _nearer_before(index, video.masks):
                    label_map = merge(earlier, label_map, known[index])
                else:
                    label_map = merge(label_map, earlier, labels)
            writer.submit(write_mask, path, label_map, palette)
            done()


def merge(mask: np.ndarray, other: np.ndarray, known: list[int]) -> np.ndarray:
    """``mask`` (H, W), and where it is background what ``other`` has of objects that it does not know."""
    return np.where((mask == 0) & ~np.isin(other, known), other, mask)


def _nearer_before(index: int, masks: dict[int, Path]) -> bool:
    """Whether the nearest given mask lies before the frame or on it (also if one behind is as near)."""
    before = [index - given for given in masks if given <= index]
    after = [given - index for given in masks if given >= index]
    return min(before, default=np.inf) <= min(after, default=np.inf)
