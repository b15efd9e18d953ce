"""Training samples from static images (stage 0): random transforms turn one image into the frames of a video."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision import tv_tensors

from dataset.image_io import read_frame, read_mask
from dataset.sampling import TrainingSample
from dataset.transforms import SIZE, static_frame, static_sequence
from util.cli import InputError, pluralize, warn
from util.normalization import normalize


class StaticDataset:
    """Images with one object each, from (image, mask) files; ``length`` frames of ``size`` pixels per sample."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], size: int = SIZE, length: int = 3):
        self.pairs, self.length = pairs, length
        self.sequence, self.frame = static_sequence(), static_frame(size)

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, epoch: int) -> TrainingSample:
        """Return a sample, drawn from the global random state; ``epoch`` is not used.

        Raises:
            InputError: a file cannot be used.
        """
        path, mask_path = self.pairs[index]
        image = tv_tensors.Image(torch.tensor(read_frame(path)).permute(2, 0, 1))
        mask = tv_tensors.Mask(torch.tensor(_soft_mask(mask_path))[None])
        if mask.shape[1:] != image.shape[1:]:
            raise InputError(f"{mask_path}: the mask is {mask.shape[2]}x{mask.shape[1]} pixels, its image "
                             f"{image.shape[2]}x{image.shape[1]}")
        if not (mask > 127).any():
            raise InputError(f"{mask_path}: no object in this mask")
        image, mask = self.sequence(image, mask)
        frames, masks = zip(*(self.frame(image, mask) for _ in range(self.length)), strict=True)
        masks = torch.cat(masks).float() / 255
        return {"frames": normalize(torch.stack(frames)), "masks": masks[:1], "target": (masks > 0.5).long(),
                "selector": torch.ones(1), "skipped": []}


def _soft_mask(path: Path) -> np.ndarray:
    """Return the object's opacity (H, W) uint8: the grey values, or 0 and 255 for labels, which are at most 127."""
    grey = read_frame(path)
    if (grey == grey[..., :1]).all() and grey.max() > 127:
        return grey[..., 0]
    return ((read_mask(path) > 0) * 255).astype(np.uint8)


def static_pairs(folder: Path, by_class: bool) -> list[tuple[Path, Path]]:
    """Return the images with masks, x.jpg and x.png, in a folder, or in its subfolders if ``by_class`` (FSS).

    Raises:
        InputError: the folder does not exist, or has no image with a mask.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    folders = sorted(path for path in folder.glob("[!.]*") if path.is_dir()) if by_class else [folder]
    pairs, missing = [], []
    for subfolder in folders:
        images = sorted(path for path in subfolder.glob("[!.]*") if path.suffix.lower() in {".jpg", ".jpeg"})
        if not images:
            warn(f"{subfolder}: no images (.jpg) in it, left out")
        for path in images:
            mask = path.with_suffix(".png")
            (pairs if mask.is_file() else missing).append((path, mask))
    if missing:
        warn(f"{folder}: {pluralize(len(missing), 'image')} without a mask left out, the first: {missing[0][0]}")
    if not pairs:
        raise InputError(f"{folder}: no image with a mask in it (x.jpg with x.png beside it)")
    return pairs
