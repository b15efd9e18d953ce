"""The training procedure: one step, and what has to be kept to go on later."""
from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.aggregate import aggregate_logits
from model.checkpoint import load_state, plain_state, read_file, save_whole
from model.losses import bootstrapped_cross_entropy, overlap
from model.memory_reader import read
from model.network import PropagationNetwork, Query
from util.cli import InputError

WEIGHT_DECAY = 1e-7
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


class Trainer:
    """The network with its optimizer and the schedule of its learning rate.

    Args:
        network: on its device.
        lr: of Adam.
        encoder_lr: what the learning rate of the image encoder is multiplied with.
        top_k: memory locations that are read; None: all.
        steps: iterations at which the learning rate is multiplied with ``gamma``.
        amp: bf16, fp16 (with a loss scaler) or None.
        distributed: average gradients over the processes of the default group.
    """

    def __init__(self, network: PropagationNetwork, lr: float, steps: list[int], gamma: float, amp: str | None = None,
                 distributed: bool = False, encoder_lr: float = 1.0, top_k: int | None = None):
        self.network = network.train()
        self.device = next(network.parameters()).device
        self.amp = AMP_TYPES[amp] if amp else None
        self.clip = Clip(network, top_k)
        if distributed:
            on_gpu = self.device.type == "cuda"
            group = torch.distributed.new_group(backend="nccl") if on_gpu else None
            self.clip = DistributedDataParallel(self.clip, [self.device] if on_gpu else None, process_group=group,
                                                broadcast_buffers=False, gradient_as_bucket_view=True)
        self.optimizer = torch.optim.Adam(self._groups(lr, encoder_lr), lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, steps, gamma)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp == "fp16")

    def _groups(self, lr: float, encoder_lr: float) -> list[dict[str, Any]]:
        """The parameters, with the pretrained image encoder apart if it is to learn more slowly than the rest."""
        if encoder_lr == 1:
            return [{"params": list(self.network.parameters())}]
        encoder = list(self.network.rgb_encoder.parameters())
        own = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in own]
        return [{"params": rest}, {"params": encoder, "lr": lr * encoder_lr}]

    def step(self, batch: dict[str, Tensor], iteration: int) -> tuple[dict[str, Tensor], tuple[Prediction, ...]]:
        """Learn from one batch.

        Args:
            batch: ``frames``, ``masks``, ``target`` and ``selector`` of `dataset.training`, on any device.
            iteration: decides on the share of hard pixels.

        Returns:
            figures that stay on the device (``loss_1``, ``loss_2``, ... of the second frame on, and ``overlap``
            (K, 2): intersections and unions of each object over these frames), and the predictions.
        """
        frames, masks, target, selector = (batch[name].to(self.device, non_blocking=True)
                                           for name in ("frames", "masks", "target", "selector"))
        with torch.autocast(self.device.type, self.amp) if self.amp else nullcontext():
            predictions = self.clip(frames, masks, selector)
            # How many objects there are is asked of the selector as it came, lest the CPU wait for the GPU.
            losses = clip_loss(predictions, target, batch["selector"], iteration)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(sum(losses)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        with torch.no_grad():
            overlaps = torch.stack([
                sum(overlap(prediction.probabilities[:, k], target[:, 1 + t] == k + 1)
                    for t, prediction in enumerate(predictions)) for k in range(masks.shape[1])])
        figures = {f"loss_{index}": loss.detach() for index, loss in enumerate(losses, 1)}
        return {**figures, "overlap": overlaps}, predictions

    def save(self, folder: Path, long_id: str, iteration: int, settings: dict[str, Any]) -> None:
        """Write the weights, and the checkpoint to go on from; the checkpoint before it stays as ``..._previous``.

        Raises:
            InputError: the weights are not finite any more, or cannot be written; what was saved before stays.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            raise InputError(f"the weights are not finite numbers any more at iteration {iteration}, so they are not "
                             f"saved: train with a smaller --lr, from what was saved before if there is anything")
        save_whole(plain_state(self.network), folder / f"{long_id}_{iteration}.pth")
        checkpoint = folder / f"{long_id}_checkpoint.pth"
        content = {"it": iteration, "network": plain_state(self.network), "optimizer": self.optimizer.state_dict(),
                   "scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict(), "settings": settings}
        new = folder / f"{long_id}_checkpoint_new.pth"
        save_whole(content, new)
        if checkpoint.exists():
            os.replace(checkpoint, folder / f"{long_id}_checkpoint_previous.pth")
        os.replace(new, checkpoint)

    def load(self, path: Path) -> tuple[int, dict[str, Any]]:
        """Go on from a checkpoint, the published code's included.

        Returns:
            its iteration, and the settings it was saved with (empty if it has none).

        Raises:
            InputError: it is missing, cut off, or of another network.
        """
        content = read_file(path)
        if not isinstance(content, dict) or not {"it", "network", "optimizer", "scheduler"} <= content.keys():
            raise InputError(f"{path}: not a training checkpoint (..._checkpoint.pth); to start from weights alone "
                             f"use --load_network")
        load_state(self.network, content["network"], path)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:
            raise InputError(f"{path}: its optimizer does not fit, perhaps because of another --encoder_lr "
                             f"({error})") from None
        self.scheduler.load_state_dict(content["scheduler"])
        if content.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        return content["it"], content.get("settings", {})
