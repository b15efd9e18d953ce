"""The published network written down as plainly as possible: the yardstick of `scripts/compare_with_plain.py`.

Every object is encoded and decoded by itself, batch normalisation is an operation of its own, and memory reading holds
the dense matrix of affinities. Nothing is shared with `model/`; weights are a published state dict.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class PlainNetwork:
    """Segments the frames of a video from the masks of the first one.

    Args:
        weights: a published state dict.
        top_k: number of affinities per query location that enter the softmax; None: all.
        mem_every: every N-th frame becomes a memory frame.
    """

    def __init__(self, weights: Mapping[str, Tensor], top_k: int | None = 50, mem_every: int = 5):
        self.weights, self.top_k, self.mem_every = weights, top_k, mem_every

    @torch.inference_mode()
    def propagate(self, frames: Iterable[Tensor], masks: Tensor) -> Iterator[Tensor]:
        """Yield the probabilities (K+1, H, W) of each frame.

        Args:
            frames: (3, H, W) each, normalised; H and W are multiples of 16.
            masks: (K, H, W), 0 or 1, of the first frame.
        """
        keys, values, latest = None, None, None         # (K, C, T, h, w)
        for index, frame in enumerate(frames):
            image = frame[None]
            if index == 0:
                probabilities = _aggregate(masks)
            else:
                # The latest frame is memorised when another one follows.
                key, value = self._memorize(*latest)
                read_keys, read_values = (key, value) if keys is None else (
                    torch.cat([keys, key], 2), torch.cat([values, value], 2))
                if (index - 1) % self.mem_every == 0:
                    keys, values = read_keys, read_values
                probabilities = _aggregate(self._segment(image, read_keys, read_values))
            latest = image, probabilities[1:]
            yield probabilities

    def _memorize(self, image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (K, C, 1, h, w) of a frame and the masks of its objects (K, H, W)."""
        keys, values = [], []
        for k in range(len(masks)):
            others = torch.cat([masks[:k], masks[k + 1:]]).sum(0)
            x = torch.cat([image, masks[None, k:k + 1], others[None, None]], 1)
            f16 = self._encode(x, "mask_rgb_encoder", "layer1")[-1]
            keys.append(self._convolve(f16, "kv_m_f16.key_proj"))
            values.append(self._convolve(f16, "kv_m_f16.val_proj"))
        return torch.cat(keys).unsqueeze(2), torch.cat(values).unsqueeze(2)

    def _segment(self, image: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return independent probabilities (K, H, W) of the objects in a query frame."""
        f4, f8, f16 = self._encode(image, "rgb_encoder", "res2")
        query_key = self._convolve(f16, "kv_q_f16.key_proj")
        query_value = self._convolve(f16, "kv_q_f16.val_proj")
        logits = []
        for key, value in zip(keys, values, strict=True):
            readout = self._read(key.flatten(1), value.flatten(1), query_key[0].flatten(1)).view_as(query_value)
            x = self._residual(torch.cat([readout, query_value], 1), "decoder.compress")
            x = self._upsample(f8, x, "decoder.up_16_8")
            x = self._upsample(f4, x, "decoder.up_8_4")
            x = self._convolve(F.relu(x), "decoder.pred")
            logits.append(F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False))
        return torch.sigmoid(torch.cat(logits)[:, 0])

    def _read(self, memory_key: Tensor, memory_value: Tensor, query_key: Tensor) -> Tensor:
        """Read values (C_v, M) with keys (C_k, M) at query keys (C_k, Q) -> (C_v, Q)."""
        affinity = memory_key.T @ query_key / len(query_key) ** 0.5
        if self.top_k is None or self.top_k >= len(affinity):
            weights = affinity.softmax(0)
        else:
            best, indices = affinity.topk(self.top_k, dim=0)
            weights = torch.zeros_like(affinity).scatter_(0, indices, best.softmax(0))
        return memory_value @ weights

    def _encode(self, x: Tensor, name: str, first_stage: str) -> list[Tensor]:
        """Return the features of a ResNet-50 at stride 4, 8 and 16."""
        x = F.relu(self._normalize(self._convolve(x, f"{name}.conv1", stride=2), f"{name}.bn1"))
        x = F.max_pool2d(x, 3, 2, padding=1)
        features = []
        for stage, blocks, stride in ((first_stage, 3, 1), ("layer2", 4, 2), ("layer3", 6, 2)):
            for block in range(blocks):
                x = self._bottleneck(x, f"{name}.{stage}.{block}", stride if block == 0 else 1)
            features.append(x)
        return features

    def _bottleneck(self, x: Tensor, name: str, stride: int) -> Tensor:
        out = F.relu(self._normalize(self._convolve(x, f"{name}.conv1"), f"{name}.bn1"))
        out = F.relu(self._normalize(self._convolve(out, f"{name}.conv2", stride), f"{name}.bn2"))
        out = self._normalize(self._convolve(out, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in self.weights:
            x = self._normalize(self._convolve(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return F.relu(out + x)

    def _residual(self, x: Tensor, name: str) -> Tensor:
        out = self._convolve(F.relu(x), f"{name}.conv1")
        out = self._convolve(F.relu(out), f"{name}.conv2")
        if f"{name}.downsample.weight" in self.weights:
            x = self._convolve(x, f"{name}.downsample")
        return x + out

    def _upsample(self, skip: Tensor, x: Tensor, name: str) -> Tensor:
        skip = self._residual(self._convolve(skip, f"{name}.skip_conv1"), f"{name}.skip_conv2")
        x = skip + F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self._residual(x, f"{name}.out_conv")

    def _convolve(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)

    def _normalize(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (self.weights[f"{name}.{part}"]
                                        for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, variance, weight, bias)


def _aggregate(probabilities: Tensor) -> Tensor:
    """Soft aggregation of objects (K, H, W) -> (K+1, H, W), background first."""
    p = torch.cat([torch.prod(1 - probabilities, 0, keepdim=True), probabilities]).clamp(1e-7, 1 - 1e-7)
    return torch.log(p / (1 - p)).softmax(0)
