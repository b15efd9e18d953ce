"""The training procedure: one step, and what has to be kept to go on later."""
from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model.checkpoint import load_state, plain_state, read_file, save_whole
from model.losses import overlap
from model.network import PropagationNetwork
from model.training import Clip, Prediction, clip_loss
from util.errors import InputError

WEIGHT_DECAY = 1e-7
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
