"""Winograd's algorithm: 3x3 convolutions as matrix products with a quarter or a fifth of the multiplications.

A tile of m x m outputs depends on n x n inputs, n = m + 2. Tiles and filters are transformed to n^2 values per channel,
multiplied by one matrix product over the channels for each of the n^2, and the products are transformed back: Lavin and
Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308, section 4. In float32 the relative error of
256 channels is 3e-6 for m = 4 and 6e-6 for m = 6 (direct convolution: 2e-7).

The wide convolutions of the network are limited by arithmetic, so this is two to four times as fast on a CPU.
winograd.cpp needs Linux, an x86 CPU with AVX2 and a C++ compiler. Elsewhere, `_convolve_by_pytorch` does the same by
PyTorch. It is slower, and faster than direct convolutions in very wide layers only. Filters are transformed again at
each call; stored, they would take four or seven times the memory of the weights.
"""
from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.compiled import can_use_compiled, load_function

ELEMENTS_IN_STRIPE = 2 ** 17            # tiles times channels that are transformed together
OUTPUTS_AT_ONCE = 256                   # output channels that are computed together
MEMORY = 19 * 2 ** 20                   # elements allocated at first: enough for frames of 480x864
MIN_MULTIPLICATIONS = 3 * 2 ** 29       # of a direct convolution, for `_convolve_by_pytorch` to be faster
MIN_CHANNELS = 2 ** 16                  # input times output channels, for `_convolve_by_pytorch` to be faster
MIN_PIXELS, MIN_CHANNELS_COMPILED = 2 ** 8, 2 ** 12         # for winograd.cpp to be faster
MIN_PIXELS_LARGE_TILES = 2 ** 12        # for 6x6 outputs per tile to be faster than 4x4


class Transforms(NamedTuple):
    """The matrices B^T (n, n), G (n, 3) and A^T (m, n) of the paper, for tiles of m x m outputs."""
    inputs: Tensor
    filters: Tensor
    outputs: Tensor

    @classmethod
    def at_points(cls, *points: float) -> Transforms:
        """Return those of Toom and Cook: polynomials are multiplied at n - 1 points and at infinity."""
        m = len(points) - 1
        others = [np.array([q for q in points if q != p]) for p in points]
        inputs = [[*np.poly(rest)[::-1], 0] for rest in others] + [np.poly(points)[::-1]]
        filters = [np.power(p, range(3)) / np.prod(p - rest) for p, rest in zip(points, others, strict=True)]
        outputs = [np.power(p, range(m)) for p in points] + [np.eye(m)[-1]]
        return cls(*(torch.from_numpy(np.array(matrix)).float().contiguous()
                     for matrix in (inputs, [*filters, [0, 0, 1]], np.transpose(outputs))))

    def to_cpp(self) -> str:
        """Return the matrices in C++, for winograd.cpp."""
        def define(name: str, matrix: Tensor) -> str:
            rows = ", ".join(f"{{{', '.join(map(str, row))}}}" for row in matrix.tolist())
            return f"static constexpr float {name}[{len(matrix)}][{matrix.shape[1]}] = {{{rows}}};\n"

        matrices = "".join(define(name.upper(), matrix) for name, matrix in self._asdict().items())
        return f"template <> struct Transforms<{len(self.outputs)}> {{\n{matrices}}};\n"


SMALL_TILES, LARGE_TILES = Transforms.at_points(0, 1, -1, 2, -2), Transforms.at_points(0, 1, -1, 2, -2, 1 / 2, -1 / 2)


def should_use_winograd(x: Tensor, weight: Tensor) -> bool:
    """Return whether `convolve` is faster than PyTorch: wide layers in float32 on a CPU, without gradients."""
    if not can_use_compiled(x) or torch.is_autocast_enabled("cpu") or x.dtype != torch.float32 or x.dim() != 4:
        return False
    if (weight.device, weight.dtype, weight.shape[1]) != (x.device, x.dtype, x.shape[1]):
        return False                    # PyTorch raises the error
    channels, pixels = weight.shape[0] * weight.shape[1], x.shape[-2] * x.shape[-1]
    if _is_compiled_for(weight):
        return channels >= MIN_CHANNELS_COMPILED and pixels >= MIN_PIXELS
    return channels >= MIN_CHANNELS and 9 * channels * pixels >= MIN_MULTIPLICATIONS


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """Return ``F.conv2d(x, weight, bias, padding=1)`` for 3x3 filters.

    Args:
        x: (N, C, H, W) float32, fastest in channels-last order.
        weight: (O, C, 3, 3), as x.
        bias: (O,) or None.
        relu: convolve relu(x) instead.

    Returns:
        (N, O, H, W) in channels-last order.
    """
    transforms = LARGE_TILES if x.shape[2] * x.shape[3] >= MIN_PIXELS_LARGE_TILES else SMALL_TILES
    implementation = _convolve_by_kernel if _is_compiled_for(weight) else _convolve_by_pytorch
    return implementation(x, weight, bias, relu, transforms)


@functools.cache
def _kernel() -> Callable | None:
    """Return `winograd` of winograd.cpp, or None where it cannot be compiled."""
    matrices = f"template <int m> struct Transforms;\n{SMALL_TILES.to_cpp()}{LARGE_TILES.to_cpp()}"
    return load_function("winograd", "winograd.cpp", matrices)


def _is_compiled_for(weight: Tensor) -> bool:
    """Return whether winograd.cpp can use these filters."""
    return weight.shape[0] % 32 == 0 and weight.shape[1] % 16 == 0 and _kernel() is not None


def _convolve_by_kernel(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, transforms: Transforms) -> Tensor:
    """`convolve` by winograd.cpp."""
    images = x.permute(0, 2, 3, 1).contiguous()
    _, height, width, channels = images.shape
    result = images.new_empty(len(x), height, width, len(weight))
    offset = None if bias is None else bias.contiguous()
    for image, out in zip(images, result, strict=True):
        _kernel()(len(transforms.outputs), image, height, width, channels, relu, weight, *weight.stride(), len(weight),
                  offset, out, torch.get_num_threads())
    return result.permute(0, 3, 1, 2)


def _convolve_by_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, transforms: Transforms) -> Tensor:
    """`convolve` by PyTorch."""
    (count, channels, height, width), outputs = x.shape, len(weight)
    tile = len(transforms.outputs)
    # One more column of tiles than needed keeps all tiles at equal distances in memory.
    rows, columns = -(-height // tile), -(-width // tile) + 1
    result = x.new_empty(count, tile * rows, tile * (columns - 1), outputs)
    stripe_rows = -(-rows // -(-rows * columns * max(channels, outputs) // ELEMENTS_IN_STRIPE))
    memory = _WorkingMemory(stripe_rows, columns, channels, min(outputs, OUTPUTS_AT_ONCE), tile)
    parts = [slice(first, first + OUTPUTS_AT_ONCE) for first in range(0, outputs, OUTPUTS_AT_ONCE)]
    filters = None
    for image, out in zip(x.permute(0, 2, 3, 1), result, strict=True):
        for first in range(0, rows, stripe_rows):
            stripe = _pad(image, tile * first, tile * min(stripe_rows, rows - first), memory, relu)
            tiles = _transform_tiles(stripe, transforms, memory)
            target = out[tile * first:tile * (first + stripe_rows)].unflatten(0, (-1, tile)).unflatten(2, (-1, tile))
            for part in parts:
                if filters is None or len(parts) > 1:
                    filters = _transform_filters(weight[part], transforms, memory)
                products = _transform_back(tiles, filters, transforms, memory)
                products = products.unflatten(2, (-1, columns))[:, :, :, :-1].permute(2, 0, 3, 1, 4)
                torch.add(products, 0 if bias is None else bias[part], out=target[..., part])
    return result[:, :height, :width].contiguous().permute(0, 3, 1, 2)


class _Kept(threading.local):
    """Memory that is kept for the next call: allocated anew each time, it would fragment the heap."""
    elements = torch.empty(0)


_kept = _Kept()


class _WorkingMemory:
    """Memory of the intermediate results."""

    def __init__(self, rows: int, columns: int, channels: int, outputs: int, tile: int):
        count, size = rows * columns, tile + 2
        # Tiles overlap the next ones by two pixels, and so do tiles that are transformed along one side.
        stripe = (tile * rows + 2) * tile * columns * channels
        half = max(size * tile * (count + 1) * channels, (size + tile) * tile * count * outputs)
        sizes = max(stripe, size ** 2 * count * channels), half, size ** 2 * channels * outputs
        if len(_kept.elements) < sum(sizes):
            with torch.inference_mode(False):           # so that it can be written to with and without this mode
                _kept.elements = torch.empty(max(sum(sizes), MEMORY), dtype=torch.float32, device="cpu")
        # The stripe is no longer needed when its tiles replace it.
        self.tiles, self.half, self.filters = _kept.elements[:sum(sizes)].split(sizes)
        self.line = tile * columns, channels


def _pad(image: Tensor, first: int, rows: int, memory: _WorkingMemory, relu: bool) -> Tensor:
    """Copy the inputs of some rows of outputs of an image (H, W, C), zero-padded: (rows + 2, m columns, C)."""
    width, channels = memory.line
    stripe = memory.tiles[:(rows + 2) * width * channels].view(rows + 2, width, channels)
    above = int(first == 0)
    inside = image[first - 1 + above:first + rows + 1]
    below, right = above + len(inside), 1 + image.shape[1]
    target = stripe[above:below, 1:right]
    torch.clamp_min(inside, 0, out=target) if relu else target.copy_(inside)
    for border in (stripe[:above], stripe[below:], stripe[:, :1], stripe[:, right:]):
        border.zero_()
    return stripe


def _transform_filters(weight: Tensor, transforms: Transforms, memory: _WorkingMemory) -> Tensor:
    """(O, C, 3, 3) -> (n, n, O, C)."""
    size, both = len(transforms.filters), torch.kron(transforms.filters, transforms.filters)
    transformed = memory.filters[:len(both) * weight[:, :, 0, 0].numel()].view(len(both), -1)
    torch.mm(both, weight.permute(2, 3, 0, 1).reshape(9, -1), out=transformed)
    return transformed.view(size, size, *weight.shape[:2])


def _transform_tiles(stripe: Tensor, transforms: Transforms, memory: _WorkingMemory) -> Tensor:
    """Transform R rows of tiles: (m R + 2, m columns, C) contiguous -> (n, R columns, n, C)."""
    tile, size = transforms.outputs.shape
    rows, line, channels = len(stripe) // tile, stripe.shape[1] * stripe.shape[2], stripe.shape[2]
    count = rows * line // (tile * channels)
    # Tiles overlap by two pixels, so they are views with a stride of m.
    overlapping = stripe.as_strided((rows, size, line), (tile * line, line, 1))
    down = memory.half[:size * rows * line].view(size, rows, line)
    torch.bmm(transforms.inputs.expand(rows, -1, -1), overlapping, out=down.transpose(0, 1))
    pieces = memory.half.as_strided((size * count, size, channels), (tile * channels, channels, 1))
    both = memory.tiles[:size ** 2 * count * channels].view(size * count, size, channels)
    torch.bmm(transforms.inputs.expand(len(pieces), -1, -1), pieces, out=both)
    return both.view(size, count, size, channels)


def _transform_back(tiles: Tensor, filters: Tensor, transforms: Transforms, memory: _WorkingMemory) -> Tensor:
    """Multiply tiles (n, T, n, C) by filters (n, n, O, C), and transform the products to outputs (m, m, T, O)."""
    tile, size = transforms.outputs.shape
    count, line = tiles.shape[1], tiles.shape[1] * filters.shape[2]
    across, outputs = memory.half[:(size + tile) * tile * line].split((size * tile * line, tile ** 2 * line))
    across, outputs = across.view(size, count, tile, -1), outputs.view(tile, tile * line)
    for row in range(size):
        torch.bmm(transforms.outputs.expand(count, -1, -1), _multiply(tiles[row], filters[row]), out=across[row])
    torch.mm(transforms.outputs, across.view(size, tile * line), out=outputs)
    return outputs.view(tile, count, tile, -1).transpose(1, 2)


def _multiply(tiles: Tensor, filters: Tensor) -> Tensor:
    """Multiply tiles (T, n, C) by filters (n, O, C) over the channels: (T, n, O).

    By a 1x1 convolution: on AMD CPUs with AVX-512, oneDNN is up to twice as fast as MKL's matrix products.
    """
    if not torch.backends.mkldnn.is_available():
        return torch.bmm(tiles.transpose(0, 1), filters.mT).transpose(0, 1)
    count, groups, channels = tiles.shape
    line = groups * channels
    channels_last = count * line, 1, line, line
    image = tiles.as_strided((1, line, count, 1), channels_last, tiles.storage_offset())
    products = F.conv2d(image, filters.view(-1, channels, 1, 1), groups=groups)
    return products.permute(0, 2, 3, 1).reshape(count, groups, -1)
