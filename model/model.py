"""Training: the forward pass over a sample, the training step, and checkpoints."""
from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.aggregate import aggregate_logits
from model.checkpoint import check_state, load_state, plain_state, read_file, save
from model.losses import bootstrapped_cross_entropy, overlap
from model.memory_reader import MemoryBlock, readout
from model.network import PropagationNetwork, Query
from util.cli import InputError
from util.files import atomic_file

WEIGHT_DECAY = 1e-7
IMAGE_ENCODER = "rgb_encoder.", "kv_q_f16.deep.stages."         # names of its parameters
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Prediction(NamedTuple):
    """The prediction for one frame."""
    logits: Tensor            # (B, K+1, H, W), aggregated
    probabilities: Tensor     # (B, K, H, W), of the objects


class TrainingForward(nn.Module):
    """The forward pass over the frames of a sample, as one module for DistributedDataParallel.

    Args:
        network: the network to train.
        top_k, kernel_sigma: of memory reading, as in inference; None: the whole memory and no kernel, as published.
    """

    def __init__(self, network: PropagationNetwork, top_k: int | None = None, kernel_sigma: float | None = None):
        super().__init__()
        self.network, self.top_k, self.kernel_sigma = network, top_k, kernel_sigma

    def forward(self, frames: Tensor, masks: Tensor, selector: Tensor,
                predicted: Tensor | None = None) -> tuple[Prediction, ...]:
        """Memorize frame 1 with its ground truth, then segment and memorize each further frame.

        Args:
            frames: (B, T, 3, H, W), normalised; T is 3 as published; H and W are multiples of 16.
            masks: (B, K, H, W), ground truth of the first frame, 0 to 1.
            selector: (B, K), 1 where the object exists. Missing objects get the probability 0.
            predicted: (B, P, K, H, W), 0 to 1; frames 2 to P + 1 are memorized with these masks, not segmented.

        Returns:
            the predictions for frames P + 2 to T; P is 0 without ``predicted``. Gradients flow through the memory.
        """
        first, *others = frames.unbind(1)
        queries = self.network.encode_query(torch.cat(others)).chunk(len(others))
        memory, predictions = [self._memorize(first, masks)], []
        given = 0 if predicted is None else predicted.shape[1]
        for index in range(given):
            memory.append(self._memorize(others[index], predicted[:, index], queries[index]))
        for frame, query in zip(others[given:], queries[given:], strict=True):
            predictions.append(self._segment(query, memory, selector))
            if frame is not others[-1]:
                memory.append(self._memorize(frame, predictions[-1].probabilities, query))
        return tuple(predictions)

    def _memorize(self, frame: Tensor, masks: Tensor, query: Query | None = None) -> MemoryBlock:
        """Return a memory frame's keys (B*K, M, C_k) and values (B*K, M, C_v)."""
        key, value = self.network.memorize(frame, masks, query)
        key = key.expand(-1, masks.shape[1], -1, -1, -1)
        return MemoryBlock(*(part.flatten(0, 1).flatten(2).mT for part in (key, value)))

    def _segment(self, query: Query, memory: list[MemoryBlock], selector: Tensor) -> Prediction:
        objects, (height, width) = selector.shape[1], query.key.shape[-2:]
        rows = query.key.flatten(2).mT.repeat_interleave(objects, 0)
        values = readout(rows, memory, self.top_k, self.kernel_sigma, width)
        values = values.mT.unflatten(-1, (height, width)).unflatten(0, selector.shape)
        probability = self.network.segment(query, values) * selector[..., None, None]
        logits = aggregate_logits(probability)
        return Prediction(logits, torch.softmax(logits, 1)[:, 1:])


class Trainer:
    """The network, on its device, with its optimizer, learning-rate schedule and, optionally, moving average.

    Args:
        lr, steps, gamma: of Adam and of its multi-step learning-rate decay.
        amp: type of mixed precision, see `AMP_TYPES`; None: float32.
        encoder_lr: learning rate of the image encoder, relative to ``lr``.
        top_k, kernel_sigma: see `TrainingForward`.
        ema: decay of the exponential moving average of the weights; None: no average.
    """

    def __init__(self, network: PropagationNetwork, lr: float, steps: list[int], gamma: float, amp: str | None = None,
                 encoder_lr: float = 1.0, top_k: int | None = None, kernel_sigma: float | None = None,
                 ema: float | None = None):
        self.network = network.train()
        self.device = next(network.parameters()).device
        self.amp = AMP_TYPES[amp] if amp else None
        self.model: nn.Module = TrainingForward(network, top_k, kernel_sigma)
        groups = [{"params": list(network.parameters())}]
        if encoder_lr != 1:
            encoder, others = [], []
            for name, parameter in network.named_parameters():
                (encoder if name.startswith(IMAGE_ENCODER) else others).append(parameter)
            groups = [{"params": others}, {"params": encoder, "lr": lr * encoder_lr}]
        self.optimizer = torch.optim.Adam(groups, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, steps, gamma)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp == "fp16")
        self.ema, self.average = ema, deepcopy(network).requires_grad_(False) if ema else None

    def distribute(self) -> None:
        """Average the gradients over all processes from here on. All processes must call this."""
        on_gpu = self.device.type == "cuda"
        group = torch.distributed.new_group(backend="nccl") if on_gpu else None
        self.model = DistributedDataParallel(self.model, [self.device] if on_gpu else None, process_group=group,
                                             gradient_as_bucket_view=True)
        # The statistics of BatchNorm are frozen. The constructor's argument of this name is deprecated.
        self.model.broadcast_buffers = False

    def step(self, batch: Mapping[str, Tensor], iteration: int) -> tuple[dict[str, Tensor], tuple[Prediction, ...]]:
        """Update the weights with one batch.

        Args:
            batch: ``frames`` (B, T, 3, H, W), ``masks`` (B, K, H, W), ``target`` (B, T, H, W) integers 0..K,
                ``selector`` (B, K) and perhaps ``predicted`` (B, P, K, H, W), on any device; see
                `TrainingForward.forward`.
            iteration: of training, from 0.

        Returns:
            metrics, which stay on the device (``loss_1`` of frame 2, ``loss_2`` of frame 3, ..., except for frames with
            a predicted mask, and ``overlap`` (K, 2): intersection and union of each object over these frames), and the
            predictions.
        """
        frames, masks, target, selector, predicted = (
            batch[name].to(self.device, non_blocking=True) if name in batch else None
            for name in ("frames", "masks", "target", "selector", "predicted"))
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            predictions = self.model(frames, masks, selector, predicted)
            segmented = range(frames.shape[1] - len(predictions), frames.shape[1])
            losses = [bootstrapped_cross_entropy(prediction.logits, target[:, t], selector, iteration)
                      for t, prediction in zip(segmented, predictions, strict=True)]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(sum(losses)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.average:
            decay = min(self.ema, (1 + iteration) / (10 + iteration))
            get_ema_multi_avg_fn(decay)(list(self.average.parameters()), list(self.network.parameters()), None)
        with torch.no_grad():
            overlaps = sum(overlap(prediction.probabilities, target[:, t])
                           for t, prediction in zip(segmented, predictions, strict=True))
        metrics = {f"loss_{t}": loss.detach() for t, loss in zip(segmented, losses, strict=True)}
        return {**metrics, "overlap": overlaps}, predictions

    def save(self, folder: Path, iteration: int, settings: dict[str, Any]) -> None:
        """Write the weights (the moving average, if there is one) and the checkpoint, named after the folder.

        The checkpoint before it is kept as ``..._checkpoint_previous.pth``.

        Raises:
            InputError: the weights are not finite. Nothing is written.
            OSError: a file cannot be written. Those saved before are kept.
        """
        if not all(parameter.isfinite().all() for parameter in self.network.parameters()):
            raise InputError(f"the weights are not finite at iteration {iteration} and are not saved; train with a "
                             f"smaller --lr, from the last checkpoint if there is one")
        content = {"it": iteration, "network": plain_state(self.network), "optimizer": self.optimizer.state_dict(),
                   "scheduler": self.scheduler.state_dict(), "scaler": self.scaler.state_dict(), "settings": settings}
        if self.average:
            content["average"] = plain_state(self.average)
        save(content.get("average", content["network"]), folder / f"{folder.name}_{iteration}.pth")
        checkpoint, previous, new = (folder / f"{folder.name}_checkpoint{suffix}.pth"
                                     for suffix in ("", "_previous", "_new"))
        save(content, new)
        if checkpoint.exists():             # copied, not renamed: there is a checkpoint at any time
            with atomic_file(previous) as partial:
                shutil.copyfile(checkpoint, partial)
        os.replace(new, checkpoint)

    def load(self, path: Path) -> tuple[int, dict[str, Any]]:
        """Resume from a checkpoint, also one of the published code.

        A moving average that the checkpoint lacks starts from its weights.

        Returns the iteration, and the settings that it was saved with (empty if it has none).

        Raises:
            InputError: the file is missing, damaged, or of another network.
        """
        content = read_file(path)
        if not isinstance(content, dict) or not {"it", "network", "optimizer", "scheduler"} <= content.keys():
            raise InputError(f"{path}: not a training checkpoint (..._checkpoint.pth); use --load_network to start "
                             f"from weights")
        load_state(self.network, check_state(content["network"], path), path)
        if self.average:
            load_state(self.average, check_state(content.get("average", content["network"]), path), path)
        iteration, settings = content["it"], content.get("settings", {})
        intact = type(iteration) is int and iteration >= 0 and isinstance(settings, dict)
        types = self._types()
        try:
            groups = [[len(group["params"]) for group in part["param_groups"]]
                      for part in (content["optimizer"], self.optimizer.state_dict())]
            if groups[0] != groups[1]:
                raise InputError(f"{path}: its optimizer does not fit, perhaps because of another --encoder_lr")
            self.optimizer.load_state_dict(content["optimizer"])
            self.scheduler.load_state_dict(content["scheduler"])
            if content.get("scaler") and self.scaler.is_enabled():
                self.scaler.load_state_dict(content["scaler"])
            # A step of Adam on moments of another shape crashes the process.
            intact &= self._types() == types and all(
                state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape
                for parameter, state in self.optimizer.state.items())
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            intact = False
        if not intact:
            raise InputError(f"{path}: damaged checkpoint; try ..._checkpoint_previous.pth beside it")
        return iteration, settings

    def _types(self) -> list[type]:
        """Return the types of the settings of optimizer and scheduler, which loading a checkpoint replaces."""
        settings = [group[name] for group in self.optimizer.param_groups
                    for name in ("lr", "betas", "eps", "weight_decay")]
        schedule = self.scheduler
        return [type(value) for value in (*settings, schedule.milestones, schedule.gamma, schedule.last_epoch,
                                          *schedule.get_last_lr())]
