"""Space-time memory: the bank that keeps it and the attention that reads it.

STM: Oh et al., arXiv 1904.00607. Top-k: Cheng et al., arXiv 2103.07941. Kernel: Seong et al. (KMN), arXiv 2007.08270.

Keys and values are stored as rows, one per location, so that matching is a plain matrix product and the k
best values of a query lie together in memory.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SET = 8                 # locations, see `largest`


def affinities_at_once(device: torch.device) -> int:
    """How many affinities to hold while reading: 16 MB of float32 on a CPU, 256 MB on a GPU.

    Queries are independent of each other, so reading them in slices bounds the working memory whatever the length
    of the video; a slice that stays in a CPU's cache is also read faster.
    """
    return 2 ** 22 if device.type == "cpu" else 2 ** 26


class MemoryBank:
    """The memory of one object: permanent frames, and at most one temporary frame after them.

    It grows by blocks of several frames that are never moved or copied.

    Args:
        max_frames: keep at most this many permanent frames, the first and the most recent; None keeps all.
    """

    SMALLEST_BLOCK, LARGEST_BLOCK = 4, 16      # frames

    def __init__(self, max_frames: int | None = None):
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, not {max_frames}")
        self.max_frames = max_frames
        self.permanent_frames = 0               # ever added, those overwritten since included
        self._has_temporary = False
        self._locations = 0                     # per frame
        self._blocks: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        """Frames that a read sees, the temporary one included."""
        return self._kept + self._has_temporary

    @property
    def _kept(self) -> int:
        return min(self.permanent_frames, self.max_frames or self.permanent_frames)

    def add(self, key: Tensor, value: Tensor, permanent: bool) -> None:
        """Memorise one frame; it replaces the temporary frame there may be.

        Args:
            key: (C_k, h, w).
            value: (C_v, h, w).
            permanent: False: only until the next frame is added.
        """
        slot = self._kept
        if self.max_frames == 1 and slot == 1:
            permanent = False
        if permanent and slot == self.max_frames:      # full: the oldest but the first gives way
            slot = 1 + (self.permanent_frames - 1) % (slot - 1)
        self._locations = key.shape[-2] * key.shape[-1]
        block_key, block_value, start = self._rows_of(slot, key, value)
        block_key[start:start + self._locations] = key.flatten(1).T
        block_value[start:start + self._locations] = value.flatten(1).T
        self.permanent_frames += permanent
        self._has_temporary = not permanent

    def _rows_of(self, slot: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, int]:
        """The block that holds frame ``slot`` and its first row there; a new block where there is none yet."""
        first = 0
        for block_key, block_value in self._blocks:
            frames = len(block_key) // self._locations
            if slot < first + frames:
                return block_key, block_value, (slot - first) * self._locations
            first += frames
        rows = self._locations * min(max(first, self.SMALLEST_BLOCK), self.LARGEST_BLOCK)
        self._blocks.append((key.new_empty(rows, len(key)), value.new_empty(rows, len(value))))
        return *self._blocks[-1], 0

    def blocks(self) -> list[tuple[Tensor, Tensor]]:
        """What there is to read: keys (M_i, C_k) and values (M_i, C_v), views that stay where they are."""
        rows, filled = len(self) * self._locations, []
        for key, value in self._blocks:
            if rows > 0:
                filled.append((key[:rows], value[:rows]))
            rows -= len(key)
        return filled


def affinity(query: Tensor, memory: Tensor) -> Tensor:
    """Scaled dot products of keys: query (..., Q, C_k), memory (..., M, C_k) -> (..., Q, M)."""
    return (query / query.shape[-1] ** 0.5) @ memory.transpose(-1, -2)


def kernel_centres(query: Tensor, blocks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """For each memory location the query location that it matches best: (..., M), M over all blocks."""
    centres = []
    for keys, _ in blocks:
        for part in keys.split(max(1, affinities_at_once(query.device) // query.shape[-2]), dim=-2):
            centres.append(affinity(query, part).max(dim=-2).indices)      # argmax is ten times slower
    return torch.cat(centres, dim=-1)


def read(query: Tensor, blocks: Sequence[tuple[Tensor, Tensor]], top_k: int | None = None,
         kernel_sigma: float | None = None, grid_width: int | None = None) -> Tensor:
    """Read the memory: at each query location the values, weighted by the softmax of their keys' affinities.

    Args:
        query: query keys (Q, C_k), rows in raster order; also (N, Q, C_k), as in training, then the blocks have
            the same leading dimension.
        blocks: keys (M_i, C_k) and values (M_i, C_v) of the memory, in any number of pieces.
        top_k: only so many of a query's largest affinities count; all if there are fewer.
        kernel_sigma: weight each memory location's affinities by a Gaussian of this standard deviation, in cells,
            around the query location that it matches best.
        grid_width: w of the h x w cells that the queries are; needed for the kernel only.

    Returns:
        (Q, C_v), or (N, Q, C_v).
    """
    locations = sum(keys.shape[-2] for keys, _ in blocks)
    batch = query.shape[:-2].numel()
    centres = None if kernel_sigma is None else kernel_centres(query, blocks)
    readouts, start = [], 0
    for part in query.split(max(1, affinities_at_once(query.device) // (locations * batch)), dim=-2):
        scores = [affinity(part, keys) for keys, _ in blocks]
        scores = scores[0] if len(scores) == 1 else torch.cat(scores, dim=-1)
        if centres is not None:
            cells = torch.arange(start, start + part.shape[-2], device=query.device).unsqueeze(-1)
            scores = scores - _squared_distance(cells, centres.unsqueeze(-2), grid_width) / (2 * kernel_sigma ** 2)
        readouts.append(_weighted_sum(scores, blocks, top_k))
        start += part.shape[-2]
    return torch.cat(readouts, dim=-2)


def _squared_distance(a: Tensor, b: Tensor, width: int) -> Tensor:
    """Between cells of a grid, given by their raster index."""
    return (a // width - b // width) ** 2 + (a % width - b % width) ** 2


def _weighted_sum(scores: Tensor, blocks: Sequence[tuple[Tensor, Tensor]], top_k: int | None) -> Tensor:
    """Softmax of the scores (..., Q, M) over all or the k best memory locations, and their values' mean by it."""
    if top_k is not None and top_k < scores.shape[-1]:
        scores, indices = largest(scores, top_k)
        weights = scores.softmax(dim=-1)
        if scores.dim() == 2:
            return sum(_gather(weights, indices, value, start) for value, start in _with_start(blocks))
        locations = sum(value.shape[-2] for _, value in blocks)
        weights = weights.new_zeros(*weights.shape[:-1], locations).scatter(-1, indices, weights)
    else:
        weights = scores.softmax(dim=-1)
    return sum(weights[..., start:start + value.shape[-2]].to(value.dtype) @ value
               for value, start in _with_start(blocks))


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`Tensor.topk` along the last dimension, unsorted, and up to three times as fast for long rows on a CPU.

    A row is dealt out to many small sets; the k largest are in the k sets with the largest maxima.
    """
    sets = scores.shape[-1] // SET
    if scores.device.type != "cpu" or sets < 4 * k:
        return scores.topk(k, dim=-1, sorted=False)
    dealt = scores[..., :sets * SET].unflatten(-1, (SET, sets))
    best = dealt.amax(-2).topk(k, dim=-1, sorted=False).indices
    indices = (best.unsqueeze(-2) + sets * torch.arange(SET).unsqueeze(-1)).flatten(-2)
    rest = torch.arange(sets * SET, scores.shape[-1]).expand(*indices.shape[:-1], -1)
    indices = torch.cat([indices, rest], -1)
    values, places = scores.gather(-1, indices).topk(k, dim=-1, sorted=False)
    return values, indices.gather(-1, places)


def _with_start(blocks: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, int]]:
    """Each block's values with the number of locations before it."""
    starts, total = [], 0
    for _, value in blocks:
        starts.append((value, total))
        total += value.shape[-2]
    return starts


def _gather(weights: Tensor, indices: Tensor, value: Tensor, start: int) -> Tensor:
    """The share of a sum over values (M, C_v) that falls on one block, weights and indices (Q, k) -> (Q, C_v).

    Indices outside of the block count as row 0 with weight 0: reading the one row again and again is cheap.
    """
    inside = (indices >= start) & (indices < start + len(value))
    rows, weights = torch.where(inside, indices - start, 0), torch.where(inside, weights, 0)
    return F.embedding_bag(rows, value, per_sample_weights=weights.to(value.dtype), mode="sum")
