"""Soft aggregation of object masks (STM, arXiv 1904.00607, equation 3)."""
from __future__ import annotations

import torch
from torch import Tensor


def aggregate_logits(probability: Tensor) -> Tensor:
    """Return logits over background and objects from independent object probabilities.

    The background probability is the product of (1 - p) over the objects.

    Args:
        probability: (..., K, H, W) in [0, 1].

    Returns:
        (..., K+1, H, W) logits log(p / (1-p)), background first; their softmax is the aggregate.
    """
    probability = probability.float()
    background = torch.prod(1 - probability, dim=-3, keepdim=True)
    clamped = torch.cat([background, probability], dim=-3).clamp(1e-7, 1 - 1e-7)
    return torch.log(clamped / (1 - clamped))


def aggregate(probability: Tensor) -> Tensor:
    """(..., K, H, W) independent probabilities -> (..., K+1, H, W) that sum to 1, background first."""
    return torch.softmax(aggregate_logits(probability), dim=-3)
