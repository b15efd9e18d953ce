"""What a training sample goes through: three frames, two of them segmented from memory."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.aggregate import aggregate_logits
from model.losses import bootstrapped_cross_entropy
from model.memory import read
from model.network import PropagationNetwork


class Prediction(NamedTuple):
    """Of one frame."""
    logits: Tensor            # (B, K+1, H, W), aggregated
    probabilities: Tensor     # (B, K, H, W), of the objects


class Clip(nn.Module):
    """The network over a clip of three frames, as one module, so that it can be wrapped for several GPUs."""

    def __init__(self, network: PropagationNetwork):
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, masks: Tensor, selector: Tensor) -> tuple[Prediction, Prediction]:
        """Memorise frame 1 with its true masks; segment frame 2, memorise that; segment frame 3 from both.

        Args:
            frames: (B, 3, 3, H, W), three normalised RGB frames; H and W multiples of 16.
            masks: (B, K, H, W), the objects in the first frame, 0 to 1.
            selector: (B, K), 1 where there is such an object; others get the probability 0.

        Returns:
            the predictions for frames 2 and 3. Gradients flow from the third into the second.
        """
        first = self._memorize(frames[:, 0], masks)
        second = self._segment(frames[:, 1], [first], selector)
        memory = [first, self._memorize(frames[:, 1], second.probabilities)]
        return second, self._segment(frames[:, 2], memory, selector)

    def _memorize(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B*K, M, C_k) and values (B*K, M, C_v) as `read` wants them."""
        key, value = self.network.memorize(frame, masks)
        return key.flatten(0, 1).flatten(2).mT, value.flatten(0, 1).flatten(2).mT

    def _segment(self, frame: Tensor, memory: list[tuple[Tensor, Tensor]], selector: Tensor) -> Prediction:
        query = self.network.encode_query(frame)
        objects, (height, width) = selector.shape[1], query.key.shape[-2:]
        rows = query.key.flatten(2).mT.repeat_interleave(objects, 0)
        readout = read(rows, memory).mT.unflatten(-1, (height, width)).unflatten(0, selector.shape)
        probability = self.network.segment(query, readout) * selector[..., None, None]
        logits = aggregate_logits(probability)
        return Prediction(logits, torch.softmax(logits, 1)[:, 1:])


def clip_loss(predictions: tuple[Prediction, Prediction], target: Tensor, selector: Tensor,
              iteration: int) -> tuple[Tensor, Tensor]:
    """The losses of frames 2 and 3; their sum is what is minimised. ``target``: (B, 3, H, W) integers."""
    return tuple(bootstrapped_cross_entropy(prediction.logits, target[:, 1 + index], selector, iteration)
                 for index, prediction in enumerate(predictions))
