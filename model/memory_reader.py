"""Reading the space-time memory: attention of a frame's locations to those of the memory.

STM: Oh et al., arXiv 1904.00607. Top-k: Cheng et al., arXiv 2103.07941. Kernel: Seong et al. (KMN), arXiv 2007.08270.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SET_SIZE = 8            # locations, see `grouped_topk`
LONG_ROW = 32           # times k
FEW_CHANNELS = 64       # of keys, see `_prefers_onednn`


def affinities_at_once(device: torch.device) -> int:
    """How many affinities to hold while reading: 16 MB of float32 on a CPU, 256 MB on a GPU.

    Queries are independent of each other, so reading them in slices bounds the working memory whatever the length
    of the video; a slice that stays in a CPU's cache is also read faster.
    """
    return 2 ** 22 if device.type == "cpu" else 2 ** 26


def affinity(query: Tensor, memory: Tensor) -> Tensor:
    """Scaled dot products of keys: query (..., Q, C_k), memory (..., M, C_k) -> (..., Q, M)."""
    query = query / query.shape[-1] ** 0.5
    if _prefers_onednn(query):
        return torch.ops.mkldnn._linear_pointwise(query, memory, None, "none", [], "")
    return query @ memory.transpose(-1, -2)


def _prefers_onednn(rows: Tensor) -> bool:
    """Whether oneDNN should multiply: for few channels it was up to twice as fast as what PyTorch takes for `@`.

    That was measured on x86; where oneDNN is not there or not asked, `@` gives the same. It needs memory of its own,
    and with 128 channels gains less.
    """
    if rows.shape[-1] > FEW_CHANNELS:
        return False
    if rows.device.type != "cpu" or rows.dtype != torch.float32 or rows.dim() != 2:
        return False
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def kernel_centers(query: Tensor, keys: Tensor) -> Tensor:
    """For each memory location (..., M, C_k) the query location that it matches best: (..., M)."""
    parts = keys.split(max(1, affinities_at_once(query.device) // query.shape[-2]), dim=-2)
    best = [affinity(query, part).max(dim=-2).indices for part in parts]             # argmax takes ten times as long
    return torch.cat(best, dim=-1)


def score_slices(query: Tensor, blocks: Sequence[Tensor], kernel_sigma: float | None,
                 grid_width: int | None) -> Iterator[Tensor]:
    """How well queries match all locations of some blocks of keys: (..., Q_i, M), for slices of the queries in turn.

    Args: as of `read`.
    """
    centres = None
    if kernel_sigma is not None:
        centres = torch.cat([kernel_centers(query, keys) for keys in blocks], -1).unsqueeze(-2)
    affinities = sum(keys.shape[:-1].numel() for keys in blocks)
    start = 0
    for part in query.split(max(1, affinities_at_once(query.device) // affinities), dim=-2):
        scores = [affinity(part, keys) for keys in blocks]
        scores = torch.cat(scores, -1) if len(scores) > 1 else scores[0]
        if centres is not None:
            cells = torch.arange(start, start + part.shape[-2], device=part.device).unsqueeze(-1)
            scores = scores - _squared_distance(cells, centres, grid_width) / (2 * kernel_sigma ** 2)
        start += part.shape[-2]
        yield scores


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
    def slices(keys: Sequence[Tensor]) -> Iterator[Tensor]:
        return score_slices(query, keys, kernel_sigma, grid_width)

    blocks_of_keys = [keys for keys, _ in blocks]
    if top_k is None or top_k >= sum(keys.shape[-2] for keys in blocks_of_keys):
        return torch.cat([_dense_sum(part.softmax(-1), blocks) for part in slices(blocks_of_keys)], -2)
    # The best of all are among the best of some block; so each is read through once for many queries.
    best = []
    for keys, _, start in _with_start(blocks):
        parts = [grouped_topk(part, min(top_k, keys.shape[-2])) for part in slices([keys])]
        scores, indices = (torch.cat(pieces, -2) for pieces in zip(*parts, strict=True))
        best.append((scores, indices + start))
    scores, indices = (torch.cat(pieces, -1) for pieces in zip(*best, strict=True))
    if len(best) > 1:
        scores, places = grouped_topk(scores, top_k)
        indices = indices.gather(-1, places)
    return _sparse_sum(scores, indices, blocks)


def _sparse_sum(scores: Tensor, indices: Tensor, blocks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The values at the indices (..., Q, k), weighted by the softmax of the scores."""
    weights = scores.softmax(dim=-1)
    if scores.dim() == 2:
        return sum(_gather(weights, indices, value, start) for _, value, start in _with_start(blocks))
    locations = sum(value.shape[-2] for _, value in blocks)
    return _dense_sum(weights.new_zeros(*weights.shape[:-1], locations).scatter(-1, indices, weights), blocks)


def _dense_sum(weights: Tensor, blocks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """All values, by weights (..., Q, M)."""
    return sum(weights[..., start:start + value.shape[-2]].to(value.dtype) @ value
               for _, value, start in _with_start(blocks))


def _squared_distance(a: Tensor, b: Tensor, width: int) -> Tensor:
    """Between cells of a grid, given by their raster index."""
    return (a // width - b // width) ** 2 + (a % width - b % width) ** 2


def grouped_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`Tensor.topk` along the last dimension, unsorted, and up to three times as fast for long rows on a CPU.

    A row is dealt out to many small sets; the k largest are in the k sets with the largest maxima, which are found in
    the same way.
    """
    locations = scores.shape[-1]
    if scores.device.type != "cpu" or locations < LONG_ROW * k:
        return scores.topk(k, dim=-1, sorted=False)
    sets = locations // SET_SIZE
    _, best = grouped_topk(scores[..., :sets * SET_SIZE].unflatten(-1, (SET_SIZE, sets)).amax(-2), k)
    indices = (best.unsqueeze(-2) + sets * torch.arange(SET_SIZE).unsqueeze(-1)).flatten(-2)
    rest = torch.arange(sets * SET_SIZE, locations).expand(*indices.shape[:-1], -1)
    indices = torch.cat([indices, rest], -1)
    values, places = scores.gather(-1, indices).topk(k, dim=-1, sorted=False)
    return values, indices.gather(-1, places)


def _with_start(blocks: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Each block's keys and values with the number of locations before it."""
    start = 0
    for keys, values in blocks:
        yield keys, values, start
        start += keys.shape[-2]


def _gather(weights: Tensor, indices: Tensor, value: Tensor, start: int) -> Tensor:
    """The share of a sum over values (M, C_v) that falls on one block, weights and indices (Q, k) -> (Q, C_v).

    Indices outside of the block count as row 0 with weight 0: reading the one row again and again is cheap.
    """
    inside = (indices >= start) & (indices < start + len(value))
    rows, weights = torch.where(inside, indices - start, 0), torch.where(inside, weights, 0)
    return F.embedding_bag(rows, value, per_sample_weights=weights.to(value.dtype), mode="sum")
