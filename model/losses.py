"""Training loss and training metrics."""
from __future__ import annotations

import time
from collections import defaultdict

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
    missing = F.pad(selector, (1, 0), value=1) == 0
    logits = logits.masked_fill(missing[..., None, None], -torch.inf)
    losses = F.cross_entropy(logits, target, reduction="none").flatten(1)
    ratio = hard_pixel_ratio(iteration)
    if ratio < 1:
        losses = losses.topk(int(ratio * losses.shape[1])).values
    return losses.mean()


def overlap(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return each object's (intersection, union) in pixels, (K, 2): (B, K, H, W) binarised at 0.5, (B, H, W) 0..K."""
    objects = torch.arange(1, probabilities.shape[1] + 1, device=target.device)
    prediction, ground_truth = probabilities > 0.5, target.unsqueeze(1) == objects.view(-1, 1, 1)
    return torch.stack([prediction & ground_truth, prediction | ground_truth], 2).sum((0, 3, 4)).float()


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

        A loss is the mean over the iterations that have it. IoU is pooled: (sum of intersections + 1) / (sum of unions
        + 1).
        """
        count, values = len(self.window), defaultdict(list)
        for metrics in self.window:
            for name, value in metrics.items():
                values[name].append(value)
        overlaps = sum(values.pop("overlap")).tolist()
        sums = {name: (sum(terms).item(), len(terms)) for name, terms in values.items()}
        seconds, self.start = time.perf_counter() - self.start, time.perf_counter()
        self.window = []
        ranks, overlaps = zip(*self.group.gather((sums, overlaps)), strict=True)
        losses = {}
        for name in sorted({name for rank in ranks for name in rank}, key=lambda name: (len(name), name)):
            totals, counts = zip(*(rank[name] for rank in ranks if name in rank), strict=True)
            losses[name] = sum(totals) / sum(counts)
        overlaps = torch.tensor(overlaps).sum(0)
        iou = ((overlaps[:, 0] + 1) / (overlaps[:, 1] + 1)).tolist()
        return {**losses, "total_loss": sum(losses.values()), "p": hard_pixel_ratio(iteration),
                **dict(zip(("iou/iou", "iou/sec_iou"), iou, strict=False)), "lr": lr, "time": seconds / count}
