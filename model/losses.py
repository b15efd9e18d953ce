"""Training loss and training metrics."""
from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from util.device import ProcessGroup

# Bootstrapping: all pixels enter the loss up to START; then their ratio falls linearly, to FINAL_RATIO at END.
START, END, FINAL_RATIO = 20_000, 70_000, 0.15


def hard_pixel_ratio(iteration: int) -> float:
    """Return the ratio of an image's pixels, those with the largest loss, that enter the loss at an iteration."""
    if iteration < START:
        return 1.0
    return FINAL_RATIO + (1 - FINAL_RATIO) * max(0, END - iteration) / (END - START)


def bootstrapped_cross_entropy(logits: Tensor, target: Tensor, selector: Tensor, iteration: int) -> Tensor:
    """Return the cross entropy of each image's hardest pixels, averaged over the batch, as a scalar.

    Args:
        logits: (B, K+1, H, W), aggregated, background first.
        target: (B, H, W) integers 0..K.
        selector: (B, K), 1 where the object exists. The classes of missing objects do not enter the softmax.
        iteration: of training, for `hard_pixel_ratio`.
    """
    ratio, losses = hard_pixel_ratio(iteration), []
    for image, labels, present in zip(logits, target, selector, strict=True):
        missing = torch.cat([present.new_ones(1), present]) == 0
        scores = image.masked_fill(missing[:, None, None], -torch.inf)
        loss = F.cross_entropy(scores[None], labels[None], reduction="none").flatten()
        if ratio < 1:
            loss = loss.topk(int(ratio * loss.numel())).values
        losses.append(loss.mean())
    return torch.stack(losses).mean()


def overlap(probability: Tensor, mask: Tensor) -> Tensor:
    """Return (intersection, union) in pixels, (2,), of two masks (..., H, W), binarised at 0.5."""
    prediction, ground_truth = probability > 0.5, mask > 0.5
    return torch.stack([(prediction & ground_truth).sum(), (prediction | ground_truth).sum()]).float()


class MetricAverage:
    """Means of the training metrics over a window of iterations and over all processes."""

    def __init__(self, group: ProcessGroup):
        self.group = group
        self.window: list[dict[str, Tensor]] = []
        self.start = time.perf_counter()

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add the metrics of one iteration, see `Trainer.step`; does not synchronise the device."""
        self.window.append(metrics)

    def finish(self, iteration: int, lr: float) -> dict[str, float]:
        """Return the published scalars of the window and start the next one. All processes must call this.

        IoU is pooled: (sum of intersections + 1) / (sum of unions + 1).
        """
        count = len(self.window)
        sums = {name: sum(metrics[name] for metrics in self.window).tolist() for name in self.window[0]}
        seconds, self.start = time.perf_counter() - self.start, time.perf_counter()
        self.window = []
        ranks = self.group.gather(sums)
        losses = {name: sum(rank[name] for rank in ranks) / len(ranks) / count for name in sums if name != "overlap"}
        overlaps = torch.tensor([rank["overlap"] for rank in ranks]).sum(0)
        iou = ((overlaps[:, 0] + 1) / (overlaps[:, 1] + 1)).tolist()
        return {**losses, "total_loss": sum(losses.values()), "p": hard_pixel_ratio(iteration),
                **dict(zip(("iou/iou", "iou/sec_iou"), iou, strict=False)), "lr": lr, "time": seconds / count}
