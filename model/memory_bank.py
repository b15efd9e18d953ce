"""The space-time memory: the bank that keeps it. `model.memory_reader` reads it.

STM: Oh et al., arXiv 1904.00607. Keys and values are stored as rows, one per location, so that matching is a plain
matrix product and the k best values of a query lie together in memory.
"""
from __future__ import annotations

from torch import Tensor

LOCATIONS_IN_BLOCK = 2 ** 14        # that lie side by side, and are read at once


class MemoryBank:
    """The memory of one object: permanent frames, and at most one temporary frame after them.

    It grows by blocks of frames, or of one where frames are large, that are never moved or copied.

    Args:
        max_frames: keep at most this many permanent frames, the first and the most recent; None keeps all.
    """

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
        frames_in_block = max(1, LOCATIONS_IN_BLOCK // self._locations)
        if self.max_frames:
            frames_in_block = min(frames_in_block, self.max_frames + 1)
        block, place = divmod(slot, frames_in_block)
        if block == len(self._blocks):
            rows = frames_in_block * self._locations
            self._blocks.append((key.new_empty(rows, len(key)), value.new_empty(rows, len(value))))
        start = place * self._locations
        for stored, new in zip(self._blocks[block], (key, value), strict=True):
            stored[start:start + self._locations] = new.flatten(1).T
        self.permanent_frames += permanent
        self._has_temporary = not permanent

    def blocks(self) -> list[tuple[Tensor, Tensor]]:
        """What there is to read: keys (M_i, C_k) and values (M_i, C_v), views that stay where they are."""
        rows, filled = len(self) * self._locations, []
        for key, value in self._blocks:
            if rows > 0:
                filled.append((key[:rows], value[:rows]))
            rows -= len(key)
        return filled
