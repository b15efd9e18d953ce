"""The parts that the lite network has instead of the published ones: it is small enough to come with the code.

What differs, and why: trained on little, a network must not have to discover that a mask is what has to be carried
over. So keys start as, and stay, one projection for memory and query alike (as in STCN, arXiv 2106.05210), compared by
their angle; and values hold the masks themselves, beside what is made of them.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.defaults import STRIDE
from model.modules import Conv3x3, JoiningResBlock, ResBlock, merge_objects, split_objects

CELL = 4                    # a stride-16 location holds its masks as 4 x 4 averages
FIRST_SCALE = 9.0


class AngularKey(nn.Module):
    """A key of fixed length: its products with other keys are cosines, times the square of a learnt scale."""

    def __init__(self, in_channels: int, key_channels: int):
        super().__init__()
        self.projection = Conv3x3(in_channels, key_channels)
        self.scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    def forward(self, f16: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C_k, h, w)."""
        return F.normalize(self.projection(f16), dim=1) * self.scale


class LiteMaskEncoder(nn.Module):
    """Of a memory frame's features and its masks: the masks, and what convolutions make of the two."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.join = JoiningResBlock(2 * CELL ** 2 + in_channels, width)
        self.refine = ResBlock(width, width)

    def image_part(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """The features' part in the first convolutions, the same for all objects: (B, C, h, w) -> (B, width, h, w)."""
        return self.join.shared(f16)

    def forward(self, image_part: tuple[Tensor, Tensor], masks: Tensor) -> Tensor:
        """What `image_part` gave, masks (B, K, 2, H, W) -> values (B*K, width + 32, h, w)."""
        cells = F.pixel_unshuffle(F.avg_pool2d(merge_objects(masks), STRIDE // CELL), CELL)
        made = self.join(split_objects(cells, len(masks)), image_part)
        return torch.cat([self.refine(merge_objects(made)), cells], 1)


class QueryKeyValue(nn.Module):
    """Stride-16 features -> key, and the value that the decoder sees beside the readout."""

    def __init__(self, in_channels: int, value_channels: int, key: AngularKey):
        super().__init__()
        self.key = key
        self.val_proj = Conv3x3(in_channels, value_channels)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> key (N, C_k, h, w), value (N, C_v, h, w)."""
        return self.key(f16), self.val_proj(f16)
