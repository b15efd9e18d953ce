"""Dense correspondences between two pictures: the network's affinity as a map from one to the other."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.defaults import STRIDE
from model.memory_reader import affinity, read
from model.network import PropagationNetwork
from model.padding import center_of_location, crop, location_of_pixel, padding


class Correspondence:
    """Where the parts of a source picture are in a target picture, of whatever size.

    The source is memorised with empty masks and the target asks, as in propagation. Each target location is a mixture
    of source locations: the softmax of its affinities to all of them (without top-k).

    Args:
        network: its device is the one computed on.
        source, target: (3, H, W) each, normalised with the ImageNet mean and standard deviation.

    Raises:
        ValueError: a picture is smaller than 16 pixels.
    """

    @torch.inference_mode()
    def __init__(self, network: PropagationNetwork, source: Tensor, target: Tensor):
        device = next(network.parameters()).device
        self.source_size, self.target_size = tuple(source.shape[-2:]), tuple(target.shape[-2:])
        for height, width in (self.source_size, self.target_size):
            if min(height, width) < STRIDE:
                raise ValueError(f"a picture of {width}x{height} pixels is too small, both sides need {STRIDE} or more")
        source, target = (F.pad(image.to(device), padding(*image.shape[-2:]))[None] for image in (source, target))
        no_mask = source.new_zeros(1, 1, *source.shape[-2:])
        key = network.memorize(source.contiguous(memory_format=torch.channels_last), no_mask)[0][0, 0]
        query = network.encode_query(target.contiguous(memory_format=torch.channels_last)).key[0]
        self.source_grid, self.target_grid = tuple(key.shape[1:]), tuple(query.shape[1:])
        self._key, self._query = (rows.flatten(1).T.contiguous() for rows in (key, query))

    def affinity(self) -> Tensor:
        """(source locations, target locations), columns sum to 1; locations are stride-16 cells in raster order."""
        return affinity(self._query, self._key).softmax(-1).T

    @torch.inference_mode()
    def transfer(self, features: Tensor) -> Tensor:
        """Carry any map (C, h, w) on the source's cells over to the target's: (C, h', w').

        The affinity is made in slices, so it need not fit into memory.

        Raises:
            ValueError: the map does not have the source's cells.
        """
        if tuple(features.shape[1:]) != self.source_grid:
            raise ValueError(f"a map of {tuple(features.shape[1:])} cells, where the source has {self.source_grid}")
        values = features.to(self._key).flatten(1).T.contiguous()
        return read(self._query, [(self._key, values)]).T.unflatten(1, self.target_grid)

    def transfer_mask(self, mask: Tensor) -> Tensor:
        """Carry a mask or any picture (C, H, W) of the source's size over to the target: (C, H', W'), blurred by cells.

        Raises:
            ValueError: it is of another size.
        """
        if tuple(mask.shape[1:]) != self.source_size:
            raise ValueError(f"a mask of {tuple(mask.shape[1:])} pixels, where the source has {self.source_size}")
        cells = F.avg_pool2d(F.pad(mask.float(), padding(*self.source_size)), STRIDE)
        return self._upsample(self.transfer(cells))

    def heat(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """How much of the source cells that hold the pixels (x, y) is at each target pixel: (H', W')."""
        return self._upsample(self._transfer_points(points))[0]

    def heat_map(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """`heat` as the published system shows it: 1 where it is half of its maximum or more, 0 to 1 below."""
        heat = self.heat(points)
        return (2 * heat / heat.max().clamp(min=1e-12)).clamp(max=1)

    def find(self, x: float, y: float) -> tuple[int, int]:
        """The middle (x, y) of the target's cell that a source pixel most likely lies in."""
        row, column = divmod(int(self._transfer_points([(x, y)]).argmax()), self.target_grid[1])
        return center_of_location(row, column, *self.target_size)

    def _transfer_points(self, points: Sequence[tuple[float, float]]) -> Tensor:
        """How much of the source cells that hold the pixels (x, y) is in each target cell: (1, h', w')."""
        cells = torch.zeros(1, *self.source_grid)
        for x, y in points:
            cells[(0, *location_of_pixel(x, y, *self.source_size))] = 1
        return self.transfer(cells)

    def _upsample(self, cells: Tensor) -> Tensor:
        pixels = F.interpolate(cells[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
        return crop(pixels, *self.target_size).contiguous()
