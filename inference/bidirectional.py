"""Propagation through a user's clip: forward, backward or both."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataset.image_io import read_mask, write_mask
from dataset.video import Video
from inference.confidence import ObjectConfidence, merge_confidences, object_confidences
from inference.passes import forward_is_nearer, frame_ranges, merge
from inference.propagation import Prediction, PropagationConfig, Timer, propagate
from model.network import PropagationNetwork
from util.parallel import map_in_threads


def propagate_clip(network: PropagationNetwork, video: Video, config: PropagationConfig, direction: str, folder: Path,
                   palette: bytes, timer: Timer, on_frame: Callable[[], None],
                   confidence: bool = False) -> dict[int, list[ObjectConfidence]]:
    """Write the masks of all frames of the passes in ``direction`` to ``folder/<frame>.png``.

    With both passes, each frame gets the result of the nearest input mask (of two equally near ones, the earlier).
    Objects that only the other pass knows are added where that result is background. Calls ``on_frame`` after each one.

    Returns:
        with ``confidence``, the figures of the objects of each frame, by its index.
    """
    confidences: dict[int, list[ObjectConfidence]] = {}
    known: dict[int, list[int]] = {}            # the labels of the forward pass by frame

    def write(prediction: Prediction) -> None:
        index, label_map, labels, _ = prediction
        objects = object_confidences(prediction) if confidence else []
        path = folder / f"{video.frames.names[index]}.png"
        if index in known:                      # this is the backward pass
            forward_map = read_mask(path).astype(np.uint8)
            if forward_is_nearer(video.masks, index):
                label_map = merge(forward_map, label_map, known[index])
                objects = merge_confidences(confidences[index], objects, label_map)
            else:
                label_map = merge(label_map, forward_map, labels)
                objects = merge_confidences(objects, confidences[index], label_map)
        known[index], confidences[index] = labels, objects
        write_mask(path, label_map, palette)

    for indices in frame_ranges(video, direction):
        for _ in map_in_threads(write, propagate(config.new_core(network), video, config, indices, timer), workers=1):
            on_frame()
    return confidences
