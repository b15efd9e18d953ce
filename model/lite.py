"""Modules of the lite network, which is small enough to be shipped with the code.

Trained on little data, a network does not discover that masks are what memory has to transfer. So memory and query
share one key projection (as in STCN, arXiv 2106.05210), keys are compared by cosine similarity, and values contain the
masks themselves beside learnt features.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.defaults import STRIDE
from model.modules import Conv3x3, JoiningResBlock, ResBlock, merge_objects, split_objects

MASK_GRID = 4               # a stride-16 location stores each mask as 4 x 4 averages
INITIAL_SCALE = 9.0


class AngularKey(nn.Module):
    """A key of fixed norm: dot products of keys are cosine similarities times the square of a learnt scale."""

    def __init__(self, in_channels: int, key_channels: int):
        super().__init__()
        self.projection = Conv3x3(in_channels, key_channels)
        self.scale = nn.Parameter(torch.tensor(INITIAL_SCALE))

    def forward(self, f16: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C_k, h, w)."""
        return F.normalize(self.projection(f16), dim=1) * self.scale


class LiteMaskEncoder(nn.Module):
    """Encodes a memory frame's features and masks to values: convolutional features, and the masks themselves."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.join = JoiningResBlock(2 * MASK_GRID ** 2 + in_channels, width)
        self.refine = ResBlock(width, width)

    def image_part(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features' part in the first convolutions, shared by objects: (B, C, h, w) -> (B, width, h, w)."""
        return self.join.shared(f16)

    def forward(self, image_part: tuple[Tensor, Tensor], masks: Tensor) -> Tensor:
        """image_part: of `image_part`; masks: (B, K, 2, H, W) -> values (B*K, width + 32, h, w)."""
        grid = F.pixel_unshuffle(F.avg_pool2d(merge_objects(masks), STRIDE // MASK_GRID), MASK_GRID)
        features = self.join(split_objects(grid, len(masks)), image_part)
        return torch.cat([self.refine(merge_objects(features)), grid], 1)


class QueryKeyValue(nn.Module):
    """Projects stride-16 features of a query frame to its key and, with deeper features, to its own value.

    Deeper features tell what belongs to an object. In keys, they would make different objects of one class alike.
    """

    def __init__(self, in_channels: int, value_channels: int, key: AngularKey, deep: nn.Module):
        super().__init__()
        self.key, self.deep = key, deep
        self.val_proj = Conv3x3(in_channels, value_channels)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> key (N, C_k, h, w), value (N, C_v, h, w)."""
        return self.key(f16), self.val_proj(self.deep(f16))
