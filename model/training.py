"""What a training sample goes through: its first frame is memorised, the others are segmented from memory."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.aggregate import aggregate_logits
from model.losses import bootstrapped_cross_entropy
from model.network import PropagationNetwork, Query
from model.reading import read


class Prediction(NamedTuple):
    """Of one frame."""
    logits: Tensor            # (B, K+1, H, W), aggregated
    probabilities: Tensor     # (B, K, H, W), of the objects


class Clip(nn.Module):
    """The network over a clip of a few frames, as one module, so that it can be wrapped for several GPUs.

    Args:
        network: to be trained.
        top_k: locations that are read, as in inference; None: all of the memory, as published.
    """

    def __init__(self, network: PropagationNetwork, top_k: int | None = None):
        super().__init__()
        self.network = network
        self.top_k = top_k

    def forward(self, frames: Tensor, masks: Tensor, selector: Tensor) -> tuple[Prediction, ...]:
        """Memorise frame 1 with its true masks; segment frame 2, memorise that; segment frame 3 from both; and so on.

        Args:
            frames: (B, T, 3, H, W), normalised RGB frames, three as published; H and W multiples of 16.
            masks: (B, K, H, W), the objects in the first frame, 0 to 1.
            selector: (B, K), 1 where there is such an object; others get the probability 0.

        Returns:
            the predictions for frames 2 to T. Gradients flow from each into those before it.
        """
        memory, predictions = [self._memorize(frames[:, 0], masks)], []
        for index in range(1, frames.shape[1]):
            query = self.network.encode_query(frames[:, index])
            predictions.append(self._segment(query, memory, selector))
            if index < frames.shape[1] - 1:
                memory.append(self._memorize(frames[:, index], predictions[-1].probabilities, query))
        return tuple(predictions)

    def _memorize(self, frame: Tensor, masks: Tensor, query: Query | None = None) -> tuple[Tensor, Tensor]:
        """Keys (B*K, M, C_k) and values (B*K, M, C_v) as `read` wants them."""
        key, value = self.network.memorize(frame, masks, query)
        return key.expand(-1, masks.shape[1], -1, -1, -1).flatten(0, 1).flatten(2).mT, value.flatten(0, 1).flatten(2).mT

    def _segment(self, query: Query, memory: list[tuple[Tensor, Tensor]], selector: Tensor) -> Prediction:
        objects, (height, width) = selector.shape[1], query.key.shape[-2:]
        rows = query.key.flatten(2).mT.repeat_interleave(objects, 0)
        readout = read(rows, memory, self.top_k).mT.unflatten(-1, (height, width)).unflatten(0, selector.shape)
        probability = self.network.segment(query, readout) * selector[..., None, None]
        logits = aggregate_logits(probability)
        return Prediction(logits, torch.softmax(logits, 1)[:, 1:])


def clip_loss(predictions: tuple[Prediction, ...], target: Tensor, selector: Tensor,
              iteration: int) -> tuple[Tensor, ...]:
    """The losses of frames 2 to T; their sum is what is minimised. ``target``: (B, T, H, W) integers."""
    return tuple(bootstrapped_cross_entropy(prediction.logits, target[:, 1 + index], selector, iteration)
                 for index, prediction in enumerate(predictions))
