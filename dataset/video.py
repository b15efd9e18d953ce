"""One video to propagate masks through: its frames, the masks given on some of them, the truth if known."""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from dataset.image_io import fit_mask, has_smooth_edges, read_mask
from dataset.video_reader import Frames, ImageFrames
from util.cli import InputError, warn


@dataclass(frozen=True)
class Video:
    """
    Attributes:
        name: of the output folder.
        frames: the stream of frames.
        masks: the mask file given on a frame, by the frame's index.
        ground_truth: the true mask files, named as the frames' masks are; a folder, or None if not all frames have one.
        binary: every non-zero value is the one object, written as 255 (DAVIS 2016).
        renumber: objects are written as 1..K in the order of their values in the first given mask (DAVIS 2017).
    """
    name: str
    frames: Frames
    masks: dict[int, Path] = field(default_factory=dict)
    ground_truth: Path | None = None
    binary: bool = False
    renumber: bool = False

    def mask(self, index: int, height: int, width: int) -> np.ndarray | None:
        """The objects given on a frame as (H, W) integers in their output values, or None.

        Raises:
            InputError: see `read_mask` and `fit_mask`.
        """
        if index not in self.masks:
            return None
        mask = fit_mask(self.masks[index], self.labels(self.masks[index]), height, width)
        return mask if mask.any() else None

    def check(self) -> list[int]:
        """Look at all given masks before any work is done, and warn of what is odd.

        Returns:
            the frames whose mask has no object.

        Raises:
            InputError: a mask cannot be used, or none has an object.
        """
        height, width = next(iter(self.frames.read([0], workers=0))).shape[:2]
        empty = []
        for index, path in self.masks.items():
            mask = self.labels(path)
            if fit_mask(path, mask, height, width) is not mask:
                warn(f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its frame {width}x{height}: "
                     f"resized to fit")
            if has_smooth_edges(mask):
                warn(f"{path}: most of its {len(np.unique(mask)) - 1} values are thin lines only, as in a mask with "
                     f"smooth edges; each is taken for an object")
            if not mask.any():
                empty.append(index)
        if len(empty) == len(self.masks):
            more = f" (nor in the {len(empty) - 1} other masks)" if len(empty) > 1 else ""
            raise InputError(f"{self.masks[empty[0]]}: no object in this mask, all of it is 0{more}")
        return empty

    @cached_property
    def _values(self) -> np.ndarray:
        """Of the objects in the first given mask, in their order."""
        mask = read_mask(self.masks[min(self.masks)])
        return np.unique(mask[mask > 0])

    def labels(self, path: Path) -> np.ndarray:
        """A given or true mask file's content in output values."""
        mask = read_mask(path)
        if self.binary:
            return (mask > 0) * 255
        if self.renumber:
            return np.where(np.isin(mask, self._values), np.searchsorted(self._values, mask) + 1, 0)
        return mask


def image_files(folder: Path, suffixes: set[str]) -> list[Path]:
    """The folder's image files in the order of their names.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    if folder.is_file():
        raise InputError(f"{folder}: is a file, not a folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir()
                   if path.suffix.lower() in suffixes and not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no images in it")
    return files


def ground_truth_folder(frames: ImageFrames, folder: Path) -> Path | None:
    """The folder, if it holds a mask for every frame."""
    return folder if all((folder / f"{name}.png").is_file() for name in frames.names) else None
