"""Memory bank: the keys and values of an object's memory frames. `model.memory_reader` reads it.

STM: Oh et al., arXiv 1904.00607.
"""
from __future__ import annotations

import torch
from torch import Tensor

from model.memory_reader import MemoryBlock

LOCATIONS_IN_BLOCK = 2 ** 14


class MemoryBank:
    """Memory frames of one object, or of objects that share keys, and at most one temporary frame after them.

    Keys and values are stored as rows, one per location. Storage grows by blocks that are never moved or copied.

    Args:
        max_frames: keep at most this many memory frames, the first and the most recent; None keeps all.
    """

    def __init__(self, max_frames: int | None = None):
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, not {max_frames}")
        self.max_frames = max_frames
        self.frames_added = 0                   # memory frames, overwritten ones included
        self._has_temporary = False
        self._locations = 0                     # per frame
        self._blocks: list[MemoryBlock] = []

    def __len__(self) -> int:
        """Return the number of frames that are read, the temporary one included."""
        return self._stored + self._has_temporary

    @property
    def _stored(self) -> int:
        return min(self.frames_added, self.max_frames or self.frames_added)

    def add(self, key: Tensor, value: Tensor, temporary: bool) -> None:
        """Memorise one frame. It replaces the temporary frame, if there is one.

        Args:
            key: (C_k, h, w). Stored in float32, in which affinities are computed.
            value: (C_v, h, w).
            temporary: the frame is kept only until the next one is added.
        """
        slot = self._stored
        if self.max_frames == 1 and slot == 1:
            temporary = True
        if not temporary and slot == self.max_frames:      # full: overwrites the oldest frame except the first
            slot = 1 + (self.frames_added - 1) % (slot - 1)
        self._locations = key.shape[-2] * key.shape[-1]
        frames_in_block = max(1, LOCATIONS_IN_BLOCK // self._locations)
        if self.max_frames:
            frames_in_block = min(frames_in_block, self.max_frames + 1)
        block, position = divmod(slot, frames_in_block)
        if block == len(self._blocks):
            rows = frames_in_block * self._locations
            self._blocks.append(MemoryBlock(key.new_empty(rows, len(key), dtype=torch.float32),
                                            value.new_empty(rows, len(value))))
        start = position * self._locations
        for stored, new in zip(self._blocks[block], (key, value), strict=True):
            stored[start:start + self._locations] = new.flatten(1).T
        self.frames_added += not temporary
        self._has_temporary = temporary

    @property
    def nbytes(self) -> int:
        """Return the bytes of storage, free blocks included."""
        return sum(rows.nbytes for block in self._blocks for rows in block)

    def blocks(self) -> list[MemoryBlock]:
        """Return the filled rows, keys (M_i, C_k) and values (M_i, C_v), as views."""
        rows, filled = len(self) * self._locations, []
        for key, value in self._blocks:
            if rows > 0:
                filled.append(MemoryBlock(key[:rows], value[:rows]))
            rows -= len(key)
        return filled
