"""The training loss, and the overlap that training watches."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Bootstrapping: all pixels count up to START iterations; from there to END the share falls to FINAL_SHARE.
START, END, FINAL_SHARE = 20_000, 70_000, 0.15


def hard_pixel_ratio(iteration: int) -> float:
    """The share of an image's pixels, the hardest ones, that enter the loss at an iteration."""
    if iteration < START:
        return 1.0
    return FINAL_SHARE + (1 - FINAL_SHARE) * max(0, END - iteration) / (END - START)


def bootstrapped_cross_entropy(logits: Tensor, target: Tensor, selector: Tensor, iteration: int) -> Tensor:
    """Cross entropy of each image's hardest pixels, averaged over the batch.

    Args:
        logits: (B, K+1, H, W), aggregated, background first.
        target: (B, H, W) integers 0..K.
        selector: (B, K), 1 where the object exists. A sample's missing objects take no part in its softmax.
        iteration: decides on the share of pixels, see `hard_pixel_ratio`.

    Returns:
        a scalar.
    """
    share, losses = hard_pixel_ratio(iteration), []
    for image, truth, present in zip(logits, target, selector, strict=True):
        classes = 1 + int(present.sum())
        loss = F.cross_entropy(image[None, :classes], truth[None], reduction="none").flatten()
        if share < 1:
            loss = loss.topk(int(share * loss.numel())).values
        losses.append(loss.mean())
    return torch.stack(losses).mean()


def overlap(probability: Tensor, mask: Tensor) -> Tensor:
    """Intersections and unions of binary masks: (..., H, W) each, cut at 0.5 -> (2,), to be added up.

    Pooled IoU is (sum of intersections + 1) / (sum of unions + 1).
    """
    found, truth = probability > 0.5, mask > 0.5
    return torch.stack([(found & truth).sum(), (found | truth).sum()]).float()
