"""Dense correspondences between two images: the affinity of the network as a map from one to the other."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.memory_reader import MemoryBlock, affinity, readout
from model.network import PropagationNetwork
from model.padding import STRIDE, center_of_location, crop, location_of_pixel, padding


class Correspondence:
    """Dense correspondence from a source image to a target image, which may differ in size.

    The source is memorised with empty masks and the target is the query frame. Each target location is a mixture of
    source locations: the softmax of its affinities to all of them, without top-k.

    Args:
        network: its device is used.
        source, target: (3, H, W) each, normalised with the ImageNet mean and standard deviation.

    Raises:
        ValueError: an image has fewer than 16 pixels on a side.
    """

    @torch.inference_mode()
    def __init__(self, network: PropagationNetwork, source: Tensor, target: Tensor):
        device = next(network.parameters()).device
        self.source_size, self.target_size = tuple(source.shape[-2:]), tuple(target.shape[-2:])
        for height, width in (self.source_size, self.target_size):
            if min(height, width) < STRIDE:
                raise ValueError(f"image of {width}x{height} pixels: both sides need at least {STRIDE}")
        source, target = (F.pad(image.to(device), padding(*image.shape[-2:]))[None] for image in (source, target))
        no_mask = source.new_zeros(1, 1, *source.shape[-2:])
        key = network.memorize(source.contiguous(memory_format=torch.channels_last), no_mask)[0][0, 0]
        query = network.encode_query(target.contiguous(memory_format=torch.channels_last)).key[0]
        self.source_grid, self.target_grid = tuple(key.shape[1:]), tuple(query.shape[1:])
        self._key, self._query = (rows.flatten(1).T.contiguous() for rows in (key, query))

    def affinity(self) -> Tensor:
        """Return (source locations, target locations) in raster order at stride 16; columns sum to 1."""
        return affinity(self._query, self._key).softmax(-1).T

    @torch.inference_mode()
    def transfer(self, features: Tensor) -> Tensor:
        """Transfer a map (C, h, w) at the source's stride-16 locations to those of the target: (C, h', w').

        The affinity is computed in tiles, so it need not fit into memory.

        Raises:
            ValueError: the map has another size.
        """
        if tuple(features.shape[1:]) != self.source_grid:
            raise ValueError(f"map of {tuple(features.shape[1:])} locations, the source has {self.source_grid}")
        values = features.to(self._key).flatten(1).T.contiguous()
        return readout(self._query, [MemoryBlock(self._key, values)]).T.unflatten(1, self.target_grid)

    def transfer_mask(self, mask: Tensor) -> Tensor:
        """Transfer a mask or image (C, H, W) of the source's size to the target: (C, H', W'), smooth at stride 16.

        Raises:
            ValueError: the mask has another size.
        """
        if tuple(mask.shape[1:]) != self.source_size:
            raise ValueError(f"mask of {tuple(mask.shape[1:])} pixels, the source has {self.source_size}")
        with_ones = torch.cat([mask.float(), torch.ones_like(mask[:1], dtype=torch.float32)])
        pooled = F.avg_pool2d(F.pad(with_ones, padding(*self.source_size)), STRIDE)
        return self._upsample(self.transfer(pooled[:-1] / pooled[-1:]))         # means without the padding

    def heat(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """Return the transferred one-hot map (H', W') of the source locations that hold the pixels (x, y)."""
        return self._upsample(self._transfer_points(points))[0]

    def heat_map(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """Return `heat` divided by its maximum, doubled and clipped to 1, as the published viewer shows it."""
        heat = self.heat(points)
        return (2 * heat / heat.max().clamp(min=1e-12)).clamp(max=1)

    def find(self, x: float, y: float) -> tuple[int, int]:
        """Return the centre (x, y) of the target location with the largest weight on a source pixel's location."""
        row, column = divmod(int(self._transfer_points([(x, y)]).argmax()), self.target_grid[1])
        return center_of_location(row, column, *self.target_size)

    def _transfer_points(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """Transfer the one-hot map of the locations that hold the pixels (x, y): (1, h', w')."""
        one_hot = torch.zeros(1, *self.source_grid)
        for x, y in points:
            one_hot[(0, *location_of_pixel(x, y, *self.source_size))] = 1
        return self.transfer(one_hot)

    def _upsample(self, features: Tensor) -> Tensor:
        pixels = F.interpolate(features[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
        return crop(pixels, *self.target_size).contiguous()
