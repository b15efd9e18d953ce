"""Training samples made of static images (stage 0): one image becomes the frames of a clip by random geometry."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from dataset.image_io import read_frame, read_mask
from dataset.transforms import SIZE, static_frame, static_sequence
from util.cli import InputError, warn
from util.normalization import normalize


class StaticDataset(Dataset):
    """Pictures with one object each; frames are made of one by random geometry.

    Args:
        pairs: (picture, mask) files; a mask's grey values are the share of the object.
        size: of the frames.
        length: frames of a sample.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], size: int = SIZE, length: int = 3):
        self.pairs, self.length = pairs, length
        self.sequence, self.frame = static_sequence(), static_frame(size)

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, epoch: int) -> dict[str, Any]:
        """A sample from the global random state; ``epoch`` does not matter.

        Raises:
            InputError: a file cannot be used.
        """
        path, mask_path = self.pairs[index]
        image = tv_tensors.Image(torch.tensor(read_frame(path)).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.tensor(_soft_mask(mask_path))[None])
        if mask.shape[1:] != image.shape[1:]:
            raise InputError(f"{mask_path}: the mask is {mask.shape[2]}x{mask.shape[1]} pixels, its picture "
                             f"{image.shape[2]}x{image.shape[1]}")
        if not (mask > 127).any():
            raise InputError(f"{mask_path}: no object in this mask")
        image, mask = self.sequence(image, mask)
        frames, masks = zip(*(self.frame(image, mask) for _ in range(self.length)), strict=True)
        masks = torch.cat(masks).float() / 255
        return {"frames": normalize(torch.stack(frames)), "masks": masks[:1], "target": (masks > 0.5).long(),
                "selector": torch.ones(1)}


def _soft_mask(path: Path) -> np.ndarray:
    """(H, W) uint8, the object's share of each pixel; a mask of labels, none above 127, counts as 0 and 255."""
    grey = read_frame(path)
    if (grey == grey[..., :1]).all() and grey.max() > 127:
        return grey[..., 0]
    return ((read_mask(path) > 0) * 255).astype(np.uint8)


def static_pairs(folder: Path, by_class: bool) -> list[tuple[Path, Path]]:
    """The pictures of a folder with their masks: x.jpg with x.png beside it.

    Args:
        by_class: they lie in one folder a class, as in FSS.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if by_class else [folder]
    pairs, missing = [], []
    for place in folders:
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
        if not found:
            warn(f"{place}: no pictures (.jpg) in it, left out")
        for path in found:
            mask = path.with_suffix(".png")
            (pairs if mask.is_file() else missing).append((path, mask))
    if missing:
        warn(f"{folder}: {len(missing)} pictures have no mask and are left out, the first: {missing[0][1]}")
    if not pairs:
        raise InputError(f"{folder}: no picture with a mask in it (x.jpg with x.png beside it)")
    return pairs
