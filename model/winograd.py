"""Winograd's F(4x4, 3x3): 3x3 convolutions as matrix products with a quarter of the multiplications.

A tile of 4x4 outputs depends on 6x6 inputs. Tiles and filters are transformed to 36 values per channel, multiplied by
one matrix product over the channels for each of the 36, and the products are transformed back: Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, arXiv 1509.09308, section 4. In float32 the relative error is about 3e-6
(direct convolution: 1e-6).

The wide convolutions of the network are limited by arithmetic, so this is 1.5 to 2.4 times as fast on a CPU with
AVX2, and 1.2 to 1.5 times with AVX-512. Filters are transformed at each call; stored, they would take four times the
memory of the weights.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TILE, INPUT_TILE = 4, 6                 # outputs, and the inputs they depend on, along each side
ELEMENTS_IN_STRIPE = 2 ** 17            # tiles times channels that are transformed together
# For Winograd's to be faster than the direct convolution: multiplications of the latter, and tiles if it has AVX-512.
MIN_MULTIPLICATIONS, MIN_TILES_AVX512 = 3 * 2 ** 29, 256

# B^T, G and A^T of the paper.
INPUT = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
         (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))
FILTER = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
          (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def should_use_winograd(x: Tensor, weight: Tensor) -> bool:
    """Return whether `convolve` is faster than PyTorch: wide layers in float32 on a CPU, without gradients."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    pixels = x.shape[-2] * x.shape[-1]
    if torch.backends.cpu.get_cpu_capability() == "AVX512" and pixels < MIN_TILES_AVX512 * TILE ** 2:
        return False
    return 9 * weight.shape[0] * weight.shape[1] * pixels >= MIN_MULTIPLICATIONS


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """Return ``F.conv2d(x, weight, bias, padding=1)`` for 3x3 filters.

    Args:
        x: (N, C, H, W) float32, fastest in channels-last order.
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        relu: convolve relu(x) instead.

    Returns:
        (N, O, H, W) in channels-last order.
    """
    (count, channels, height, width), outputs = x.shape, len(weight)
    # One more column of tiles than needed keeps all tiles at equal distances in memory.
    rows, columns = -(-height // TILE), -(-width // TILE) + 1
    result = x.new_empty(count, TILE * rows, TILE * (columns - 1), outputs)
    filters = _transform_filters(weight)
    stripe_rows = min(rows, max(1, ELEMENTS_IN_STRIPE // (columns * max(channels, outputs))))
    buffers = _Buffers(stripe_rows, columns, channels, outputs, x)
    for image, out in zip(x.permute(0, 2, 3, 1), result, strict=True):
        for first in range(0, rows, stripe_rows):
            stripe = _pad(image, first, min(stripe_rows, rows - first), buffers, relu)
            tiles = _transform_back(_transform_tiles(stripe, buffers), filters, buffers)
            tiles = tiles.unflatten(2, (-1, columns))[:, :, :, :-1].permute(2, 0, 3, 1, 4)
            target = out[TILE * first:TILE * (first + stripe_rows)].unflatten(0, (-1, TILE)).unflatten(2, (-1, TILE))
            target.copy_(tiles) if bias is None else torch.add(tiles, bias, out=target)
    return result[:, :height, :width].contiguous().permute(0, 3, 1, 2)


class _Buffers:
    """Working memory of the stripes of tiles, reused so that it stays in the CPU's cache.

    Each step reads one of ``even`` and ``odd`` and writes the other.
    """

    def __init__(self, rows: int, columns: int, channels: int, outputs: int, like: Tensor):
        tiles = rows * columns
        # Tiles overlap the next ones by two pixels.
        self.stripe = like.new_zeros(TILE * rows + 2, TILE * columns, channels)
        # Tiles transformed along one side extend into two pixels more.
        self.odd = like.new_empty(INPUT_TILE * TILE * max(tiles * outputs, tiles * channels + channels))
        self.even = like.new_empty(tiles * max(INPUT_TILE ** 2 * channels, TILE ** 2 * outputs))
        self.a, self.b = (torch.tensor(rows, dtype=like.dtype, device=like.device) for rows in (OUTPUT, INPUT))


def _pad(image: Tensor, first: int, rows: int, buffers: _Buffers, relu: bool) -> Tensor:
    """Copy the inputs of rows of tiles of an image (H, W, C), zero-padded: (4 rows + 2, 4 columns, C)."""
    stripe = buffers.stripe[:TILE * rows + 2]
    above = int(first == 0)
    inside = image[TILE * first - 1 + above:TILE * (first + rows) + 1]
    stripe[:above] = 0
    target = stripe[above:above + len(inside), 1:1 + image.shape[1]]
    torch.clamp_min(inside, 0, out=target) if relu else target.copy_(inside)
    stripe[above + len(inside):] = 0
    return stripe


def _transform_filters(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) -> (6, 6, O, C)."""
    g = torch.tensor(FILTER, dtype=weight.dtype, device=weight.device)
    both = torch.einsum("ij,kl->ikjl", g, g).reshape(INPUT_TILE ** 2, 9)
    transformed = both @ weight.permute(2, 3, 0, 1).reshape(9, -1)
    return transformed.view(INPUT_TILE, INPUT_TILE, *weight.shape[:2])


def _transform_tiles(stripe: Tensor, buffers: _Buffers) -> Tensor:
    """Transform R rows of tiles: (4 R + 2, 4 columns, C) contiguous -> (6, R columns, 6, C)."""
    rows, line, channels = len(stripe) // TILE, stripe.shape[1] * stripe.shape[2], stripe.shape[2]
    count = rows * line // (TILE * channels)
    # Tiles overlap by two pixels, so they are views with a stride of four.
    overlapping = stripe.as_strided((rows, INPUT_TILE, line), (TILE * line, line, 1))
    down = buffers.odd[:INPUT_TILE * rows * line].view(INPUT_TILE, rows, line)
    torch.bmm(buffers.b.expand(rows, -1, -1), overlapping, out=down.transpose(0, 1))
    pieces = down.as_strided((INPUT_TILE * count, INPUT_TILE, channels), (TILE * channels, channels, 1))
    both = buffers.even[:INPUT_TILE ** 2 * count * channels].view(INPUT_TILE * count, INPUT_TILE, channels)
    torch.bmm(buffers.b.expand(len(pieces), -1, -1), pieces, out=both)
    return both.view(INPUT_TILE, count, INPUT_TILE, channels)


def _transform_back(tiles: Tensor, filters: Tensor, buffers: _Buffers) -> Tensor:
    """Multiply tiles (6, T, 6, C) by filters (6, 6, O, C), and transform the products to outputs (4, 4, T, O)."""
    count, size = tiles.shape[1], tiles.shape[1] * filters.shape[2]
    across = buffers.odd[:INPUT_TILE * TILE * size].view(INPUT_TILE, count, TILE, -1)
    for row in range(INPUT_TILE):
        torch.bmm(buffers.a.expand(count, -1, -1), _multiply(tiles[row], filters[row]), out=across[row])
    outputs = buffers.even[:TILE ** 2 * size].view(TILE, TILE * size)
    torch.mm(buffers.a, across.view(INPUT_TILE, TILE * size), out=outputs)
    return outputs.view(TILE, count, TILE, -1).transpose(1, 2)


def _multiply(tiles: Tensor, filters: Tensor) -> Tensor:
    """Multiply tiles (T, 6, C) by filters (6, O, C) over the channels: (T, 6, O).

    By a 1x1 convolution: on AMD CPUs with AVX-512, oneDNN is twice as fast as MKL's matrix products.
    """
    if not torch.backends.mkldnn.is_available():
        return torch.bmm(tiles.transpose(0, 1), filters.mT).transpose(0, 1)
    count, groups, channels = tiles.shape
    line = groups * channels
    channels_last = count * line, 1, line, line
    image = tiles.as_strided((1, line, count, 1), channels_last, tiles.storage_offset())
    products = F.conv2d(image, filters.view(-1, channels, 1, 1), groups=groups)
    return products.permute(0, 2, 3, 1).reshape(count, groups, -1)
