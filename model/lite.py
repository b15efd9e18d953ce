"""The parts that the lite network has instead of the published ones: it is small enough to come with the code.

What differs, and why: trained on little, a network must not have to discover that a mask is what has to be carried
over. So keys start as, and stay, one projection for memory and query alike (as in STCN, arXiv 2106.05210), compared by
their angle; and values hold the masks themselves, beside what is made of them.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.modules import ResBlock
from model.padding import STRIDE

CELL = 4                    # a stride-16 location holds its masks as 4 x 4 averages
FIRST_SCALE = 9.0


class AngularKey(nn.Module):
    """A key of fixed length: its products with other keys are cosines, times the square of a learnt scale."""

    def __init__(self, in_channels: int, key_channels: int):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, key_channels, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    def forward(self, f16: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C_k, h, w)."""
        return F.normalize(self.projection(f16), dim=1) * self.scale


class LiteMaskEncoder(nn.Module):
    """Of a memory frame's features and its masks: both, and what convolutions make of the two."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.join = ResBlock(in_channels + 2 * CELL ** 2, width)
        self.refine = ResBlock(width, width)

    def forward(self, f16: Tensor, masks: Tensor) -> Tensor:
        """f16 (B, C, h, w), masks (B, K, 2, H, W) -> (B*K, C + width + 32, h, w): features, made values, masks."""
        cells = F.pixel_unshuffle(F.avg_pool2d(masks.flatten(0, 1), STRIDE // CELL), CELL)
        features = f16.repeat_interleave(masks.shape[1], 0)
        made = self.refine(self.join(torch.cat([features, cells], 1)))
        return torch.cat([features, made, cells], 1)


class MemoryKeyValue(nn.Module):
    """What `LiteMaskEncoder` gives -> key, value; the key is of the image features alone."""

    def __init__(self, in_channels: int, key: AngularKey):
        super().__init__()
        self.in_channels = in_channels
        self.key = key

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C + C_v, h, w) -> key (N, C_k, h, w), value (N, C_v, h, w)."""
        return self.key(x[:, :self.in_channels]), x[:, self.in_channels:]


class QueryKeyValue(nn.Module):
    """Stride-16 features -> key, and the value that the decoder sees beside the readout."""

    def __init__(self, in_channels: int, value_channels: int, key: AngularKey):
        super().__init__()
        self.key = key
        self.val_proj = nn.Conv2d(in_channels, value_channels, 3, padding=1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> key (N, C_k, h, w), value (N, C_v, h, w)."""
        return self.key(f16), self.val_proj(f16)
