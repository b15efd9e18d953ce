"""Memory reading: attention from the locations of a query frame to those of the memory.

STM: Oh et al., arXiv 1904.00607. Top-k: Cheng et al., arXiv 2103.07941. Kernelized memory: Seong et al. (KMN),
arXiv 2007.08270.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.compiled import can_use_compiled, load_function

GROUP_SIZE = 8          # of `grouped_topk`
ROWS_IN_GROUP = 32      # of `grouped_argmax`
LONG_ROW = 32           # times k: rows from this length on are grouped


class MemoryBlock(NamedTuple):
    """Keys and values of consecutive memory locations, one row per location."""
    key: Tensor         # (..., M, C_k)
    value: Tensor       # (..., M, C_v)


def tile_elements(device: torch.device) -> int:
    """Return how many affinities are computed at once: 16 MB of float32 on a CPU, 256 MB on a GPU.

    Tiles bound the working memory whatever the length of the video. A tile that stays in a CPU's cache is also faster.
    """
    return 2 ** 22 if device.type == "cpu" else 2 ** 26


def affinity(query: Tensor, key: Tensor) -> Tensor:
    """Return scaled dot products in float32: query (..., Q, C_k), key (..., M, C_k) -> (..., Q, M).

    Sixteen bits are too few before top-k: at 32 to 64, where affinities lie, bfloat16 has steps of 0.25.
    """
    with torch.autocast(query.device.type, enabled=False):
        query = query.float() / query.shape[-1] ** 0.5
        return query @ key.float().transpose(-1, -2)


def readout(query: Tensor, blocks: Sequence[MemoryBlock], top_k: int | None = None,
            kernel_sigma: float | None = None, grid_width: int | None = None) -> Tensor:
    """Return the values of the memory at each query location, weighted by the softmax of the affinities.

    Args:
        query: query keys (Q, C_k), one row per location in raster order; in training (N, Q, C_k), and the blocks have
            the same leading dimension.
        blocks: the memory, in any number of pieces.
        top_k: only the k largest affinities of each query location enter the softmax; None, or fewer locations: all.
        kernel_sigma: standard deviation, in stride-16 locations, of the Gaussian that weights each memory location's
            affinities around the query location with which its affinity is largest; None: no kernel.
        grid_width: w of the h x w query locations; needed with the kernel only.

    Returns:
        (Q, C_v) or (N, Q, C_v).
    """
    kernel = None if kernel_sigma is None else Kernel(query, kernel_sigma, grid_width)
    if top_k is None or top_k >= sum(block.key.shape[-2] for block in blocks):
        return _softmax_readout(query, blocks, kernel)
    search = _compiled_top_k if _is_compiled_for(query, blocks) else _top_k
    scores, indices = search(query, blocks, top_k, kernel)
    return _gather_values(scores.softmax(-1), indices, blocks)


def _top_k(query: Tensor, blocks: Sequence[MemoryBlock], k: int, kernel: Kernel | None) -> tuple[Tensor, Tensor]:
    """Return the k largest affinities of each query location, and their memory locations: (..., Q, k) each."""
    # The global top-k is contained in the union of the top-k of the memory tiles.
    best = []
    for start, (key, _) in _tiles(query, blocks, tile_elements(query.device) if kernel else None):
        parts = [grouped_topk(scores, min(k, scores.shape[-1])) for scores in _scores(query, key, kernel)]
        scores, indices = (torch.cat(pieces, -2) for pieces in zip(*parts, strict=True))
        best.append((scores, indices + start))
    scores, indices = (torch.cat(pieces, -1) for pieces in zip(*best, strict=True))
    if len(best) > 1:
        scores, positions = grouped_topk(scores, k)
        indices = indices.gather(-1, positions)
    return scores, indices


@functools.cache
def _update_top_k() -> Callable | None:
    """Return the function of memory_reader.cpp, or None where it cannot be compiled."""
    return load_function("update_top_k", "memory_reader.cpp")


def _is_compiled_for(query: Tensor, blocks: Sequence[MemoryBlock]) -> bool:
    """Return whether memory_reader.cpp can be used."""
    if not can_use_compiled(query) or query.dim() != 2 or _update_top_k() is None:
        return False
    return all((key.device, key.shape[1:]) == (query.device, query.shape[1:]) for key, _ in blocks)


def _compiled_top_k(query: Tensor, blocks: Sequence[MemoryBlock], k: int,
                    kernel: Kernel | None) -> tuple[Tensor, Tensor]:
    """As `_top_k`, by memory_reader.cpp, for queries (Q, C_k)."""
    count, channels = query.shape
    query = (query.float() / channels ** 0.5).contiguous()
    positions = None if kernel is None else kernel.query[:, :2].T.contiguous()      # without its column of ones
    scores = query.new_full((count, k), -torch.inf)
    indices = torch.zeros(count, k, dtype=torch.int64, device="cpu")
    start = 0
    for key, _ in blocks:
        key = key.float().contiguous()
        _update_top_k()(query, count, channels, key, len(key), start, positions, int(k), scores, indices,
                        torch.get_num_threads())
        start += len(key)
    return scores, indices


class Kernel:
    """The Gaussian of kernelized reading as a bilinear form of coordinates.

    The exponent -|p - c|^2 / (2 sigma^2) of query location p and centre c is p.c / sigma^2 - |c|^2 / (2 sigma^2) up to
    a term of p alone, which changes neither a query's softmax nor its top-k. So it is one product with three channels.
    """

    def __init__(self, query: Tensor, sigma: float, grid_width: int):
        index = torch.arange(query.shape[-2], device=query.device)
        row, column = index // grid_width, index % grid_width
        position = torch.stack([row, column], -1).float()
        position = (position - position.mean(0)) / sigma             # centred: small numbers, less rounding
        norm = position.square().sum(-1, keepdim=True)
        self.query = torch.cat([position, torch.ones_like(norm)], -1)       # (Q, 3)
        self.centre = torch.cat([position, -norm / 2], -1)                  # (Q, 3), by the centre's query location

    def weight_(self, scores: Tensor) -> Tensor:
        """Add the Gaussian's exponent to affinities (..., Q, M) of all query locations, in place."""
        centres = self.centre[grouped_argmax(scores.detach())]
        if scores.dim() == 2:
            return scores.addmm_(self.query, centres.T)
        return scores.baddbmm_(self.query.expand(len(scores), -1, -1), centres.mT)


def _tiles(query: Tensor, blocks: Sequence[MemoryBlock], elements: int | None) -> Iterator[tuple[int, MemoryBlock]]:
    """Yield the memory in pieces, each with the number of locations before it.

    Args:
        elements: how many affinities a piece has to all queries at most (but at least one location): the kernel looks
            for the centre of a memory location among all queries. None: a piece is a whole block, since top-k is
            faster on long rows, and `_scores` takes some of the queries at a time.
    """
    start = 0
    for key, value in blocks:
        length = key.shape[-2]
        if elements is not None:
            length = min(max(1, elements // query.shape[:-1].numel()), length)
        for tile in zip(key.split(length, -2), value.split(length, -2), strict=True):
            yield start, MemoryBlock(*tile)
            start += tile[0].shape[-2]


def _scores(query: Tensor, key: Tensor, kernel: Kernel | None) -> Iterator[Tensor]:
    """Yield the affinities of slices of the queries to a memory tile, (..., Q_i, M); with a kernel all, weighted."""
    if kernel is not None:
        yield kernel.weight_(affinity(query, key))
        return
    for part in query.split(max(1, tile_elements(query.device) // key.shape[:-1].numel()), -2):
        yield affinity(part, key)


def _softmax_readout(query: Tensor, blocks: Sequence[MemoryBlock], kernel: Kernel | None) -> Tensor:
    """Read from all locations, tile by tile; sums so far are rescaled when a tile has a larger score."""
    peak = query.new_full((*query.shape[:-1], 1), -torch.inf, dtype=torch.float32)
    norm, weighted = 0, 0
    for _, (key, value) in _tiles(query, blocks, tile_elements(query.device) // 2):         # scores and weights
        scores = affinity(query, key)
        if kernel is not None:
            kernel.weight_(scores)
        last_peak, peak = peak, torch.maximum(peak, scores.detach().amax(-1, keepdim=True))
        weights, rescale = (scores - peak).exp(), (last_peak - peak).exp()
        norm = norm * rescale + weights.sum(-1, keepdim=True)
        weighted = weighted * rescale + weights.to(value.dtype) @ value
    return (weighted / norm).to(value.dtype)


def _gather_values(weights: Tensor, indices: Tensor, blocks: Sequence[MemoryBlock]) -> Tensor:
    """Return the sums of the values at indices (..., Q, k), by weights of the same shape."""
    if weights.dim() == 3:          # in training: gradients of a matrix product are cheaper than those of a gather
        values = torch.cat([value for _, value in blocks], -2)
        dense = weights.new_zeros(*weights.shape[:-1], values.shape[-2]).scatter(-1, indices, weights)
        return dense.to(values.dtype) @ values
    start, total = 0, 0
    for _, value in blocks:
        inside = (indices >= start) & (indices < start + len(value))
        # Rows outside of the block read row 0 with weight 0: reading one row again and again is cheap.
        rows, shares = torch.where(inside, indices - start, 0), torch.where(inside, weights, 0)
        total = total + F.embedding_bag(rows, value, per_sample_weights=shares.to(value.dtype), mode="sum")
        start += len(value)
    return total


def grouped_argmax(scores: Tensor) -> Tensor:
    """Return the index of the largest element of each column: (..., Q, M) -> (..., M).

    On a CPU, maxima are ten times as fast as their indices, so the index is only looked for in the best group of rows.
    """
    length = scores.shape[-2]
    if scores.device.type != "cpu" or length < 2 * ROWS_IN_GROUP:
        return scores.max(-2).indices                       # argmax is slower on a CPU
    groups = length // ROWS_IN_GROUP
    maxima = torch.cat([scores[..., :groups * ROWS_IN_GROUP, :].unflatten(-2, (groups, ROWS_IN_GROUP)).amax(-2),
                        scores[..., -ROWS_IN_GROUP:, :].amax(-2, keepdim=True)], -2)
    first = (maxima.max(-2, keepdim=True).indices * ROWS_IN_GROUP).clamp_(max=length - ROWS_IN_GROUP)
    rows = first + torch.arange(ROWS_IN_GROUP, device=scores.device).unsqueeze(-1)
    return rows.gather(-2, scores.gather(-2, rows).max(-2, keepdim=True).indices).squeeze(-2)


def grouped_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `Tensor.topk` along the last dimension, unsorted; up to three times as fast for long rows on a CPU.

    Each row is partitioned into groups. The k largest elements lie in the k groups with the largest maxima, which are
    found in the same way.
    """
    length = scores.shape[-1]
    if scores.device.type != "cpu" or length < LONG_ROW * k:
        return scores.topk(k, dim=-1, sorted=False)
    groups = length // GROUP_SIZE
    _, best = grouped_topk(scores[..., :groups * GROUP_SIZE].unflatten(-1, (GROUP_SIZE, groups)).amax(-2), k)
    indices = (best.unsqueeze(-2) + groups * torch.arange(GROUP_SIZE, device=scores.device).unsqueeze(-1)).flatten(-2)
    rest = torch.arange(groups * GROUP_SIZE, length, device=scores.device).expand(*indices.shape[:-1], -1)
    indices = torch.cat([indices, rest], -1)
    values, positions = scores.gather(-1, indices).topk(k, dim=-1, sorted=False)
    return values, indices.gather(-1, positions)
