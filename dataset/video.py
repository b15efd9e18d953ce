"""A video to propagate masks through: its frames, its input masks, and its ground truth if there is any."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from dataset.image_io import IMAGE_SUFFIXES, MAX_OBJECTS, fit_mask, read_mask
from dataset.video_reader import Frames
from util.cli import InputError, warn


@dataclass(frozen=True)
class Video:
    """A video with the files of its masks."""
    name: str                               # of the output folder
    frames: Frames
    masks: dict[int, Path] = field(default_factory=dict)        # input masks by the index of their frame
    ground_truth: Path | None = None        # folder of masks named after the frames; None if there are too few to score
    binary: bool = False                    # every non-zero value is the one object, written as 255 (DAVIS 2016)
    requested: frozenset[str] | None = None     # names of the frames to submit; None: all that get a mask
    renumber: bool = False                  # objects are written as 1..K, ordered as in the first mask (DAVIS 2017)

    def input_mask(self, index: int, height: int, width: int) -> np.ndarray | None:
        """The input mask of a frame as (height, width) output labels; None if it has none, or one without objects."""
        if index not in self.masks:
            return None
        mask = fit_mask(self.masks[index], self.labels(self.masks[index]), height, width)
        return mask if mask.any() else None

    def check(self) -> list[int]:
        """Read all input masks, of which one at least must have an object, and return the frames of those without."""
        height, width = next(self.frames.read([0], workers=0)).shape[:2]
        empty, objects, reason = [], set(), "no object in this mask, all pixels are 0"
        for index, path in self.masks.items():
            mask = read_mask(path, show_warnings=True, binary=self.binary)
            fitted = fit_mask(path, mask, height, width)
            labels = np.setdiff1d(self._output_labels(fitted), 0)
            if fitted is not mask:
                warn(f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its frame {width}x{height}; it is "
                     f"resized")
                lost = np.setdiff1d(self._output_labels(mask), [0, *labels])
                if lost.size:
                    warn(f"{path}: object {lost[0]} is too small to keep a pixel when the mask is resized")
                    reason = "no object in this mask, its objects are too small for the size of the frame"
            if not labels.size:
                empty.append(index)
            objects.update(labels.tolist())
        if len(objects) > MAX_OBJECTS:
            raise InputError(f"{path.parent}: the masks have {len(objects)} objects together, the limit is "
                             f"{MAX_OBJECTS}")
        if len(empty) == len(self.masks):
            others = f" (nor in the {len(empty) - 1} other masks)" if len(empty) > 1 else ""
            raise InputError(f"{self.masks[empty[0]]}: {reason}{others}")
        return empty

    def output_names(self) -> list[str]:
        """The names of the frames that get a mask: those from the first object on."""
        first = min((index for index, path in self.masks.items() if self.labels(path).any()), default=0)
        return self.frames.names[first:]

    def requested_names(self) -> list[str]:
        """The names of the frames whose masks a server of the benchmark scores, ascending."""
        return self.output_names() if self.requested is None else sorted(self.requested)

    def input_values(self, mask: np.ndarray) -> np.ndarray:
        """Output labels (H, W) as the values that the objects have in the input masks, uint8."""
        return np.append(0, self._objects).astype(np.uint8)[mask] if self.renumber else mask

    def labels(self, path: Path) -> np.ndarray:
        """The output labels (H, W) of an input or ground-truth mask file."""
        return self._output_labels(read_mask(path, binary=self.binary))

    def _output_labels(self, mask: np.ndarray) -> np.ndarray:
        if self.renumber:
            return np.where(np.isin(mask, self._objects), np.searchsorted(self._objects, mask) + 1, 0)
        return mask

    @cached_property
    def _objects(self) -> np.ndarray:
        """The values of the objects in the first input mask, ascending."""
        return np.setdiff1d(read_mask(self.masks[min(self.masks)]), 0)


def image_files(folder: Path, suffixes: set[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The image files of a folder, at least one, in the natural order of their names (2 before 10)."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    files = sorted((path for path in folder.iterdir()
                    if path.suffix.lower() in suffixes and not path.name.startswith(".")),
                   key=lambda path: (natural_order(path.name), path.name))
    if not files:
        raise InputError(f"{folder}: no images in it")
    return files


def natural_order(name: str) -> list[str | int]:
    """A sort key that compares numbers in names by value."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]


def ground_truth_folder(frames: Frames, folder: Path) -> Path | None:
    """The folder, if it contains masks for more than two frames; scoring leaves out the first and the last."""
    return folder if sum((folder / f"{name}.png").is_file() for name in frames.names) > 2 else None
