"""Confidence of predicted masks by object, and the frames that a user should look at."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from inference.propagation import Prediction


class ObjectConfidence(NamedTuple):
    """Figures of an object on a frame.

    Attributes:
        area: pixels of the frame.
        confidence: mean probability of the object over the pixels where it is the most probable one; 0 without any.
        boundary_confidence: the same over those of them that have another label beside, above or below them.
    """
    label: int
    area: int
    confidence: float
    boundary_confidence: float


def object_confidences(prediction: Prediction) -> list[ObjectConfidence]:
    """The figures of all objects of a prediction, in the order of their labels' channels."""
    probability, channel = (tensor.cpu().numpy() for tensor in prediction.probabilities.float().max(0))
    boundary = np.zeros(channel.shape, bool)
    vertical, horizontal = channel[1:] != channel[:-1], channel[:, 1:] != channel[:, :-1]
    boundary[1:] |= vertical
    boundary[:-1] |= vertical
    boundary[:, 1:] |= horizontal
    boundary[:, :-1] |= horizontal
    channels = len(prediction.labels) + 1
    means = [_means(channel[pixels], probability[pixels], channels) for pixels in (np.s_[:], boundary)]
    areas = np.bincount(prediction.label_map.ravel(), minlength=256)
    return [ObjectConfidence(label, int(areas[label]), float(means[0][index]), float(means[1][index]))
            for index, label in enumerate(prediction.labels, 1)]


def _means(channel: np.ndarray, probability: np.ndarray, channels: int) -> np.ndarray:
    """The mean probability by channel."""
    channel = channel.ravel()
    count = np.bincount(channel, minlength=channels)
    return np.bincount(channel, probability.ravel(), channels) / np.maximum(count, 1)


def is_doubtful(previous: Sequence[ObjectConfidence] | None, current: Sequence[ObjectConfidence]) -> bool:
    """Whether an object of a frame should be looked at: a low confidence, or a jump of its area."""
    areas = {figures.label: figures.area for figures in previous or ()}
    return any(figures.area and figures.boundary_confidence < 0.75
               or max(figures.area, areas.get(figures.label, figures.area))
               > 1.5 * min(figures.area, areas.get(figures.label, figures.area)) for figures in current)
