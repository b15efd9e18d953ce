"""Training log: scalars, images, git revision."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from util.normalization import IMAGENET_MEAN, IMAGENET_STD

TILE = 384
MAX_SAMPLES = 8       # in an image


def describe_commit(folder: Path) -> str:
    """Return the branch and commit of a git checkout and whether it has uncommitted changes, or that there is none."""
    try:
        import git  # fails where the program git is missing
    except ImportError:
        return "unknown, git is not installed"
    try:
        repository = git.Repo(folder, search_parent_directories=True)
        branch = "detached HEAD" if repository.head.is_detached else repository.active_branch.name
        dirty = ", with uncommitted changes" if repository.is_dirty() else ""
        return f"{branch} {repository.head.commit.hexsha}{dirty}"
    except (git.exc.GitError, ValueError, OSError):      # no checkout, no commit yet, or not readable
        return "not in a git checkout"


class Logger:
    """Console lines and, with a folder, a TensorBoard log of one run."""

    def __init__(self, name: str, folder: Path | None):
        self._name, self._writer = name, None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter
            self._writer = SummaryWriter(str(folder))

    def text(self, tag: str, text: str) -> None:
        """Log a text, such as the hyperparameters."""
        print(f"{self._name} - {tag}: {text}", flush=True)
        if self._writer:
            self._writer.add_text(tag, text)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Log the scalars of an iteration, in TensorBoard under ``train/``."""
        for name, value in values.items():
            print(f"{self._name} - It {iteration:6d} [TRAIN] [{name}]: {value:.9g}", flush=True)
            if self._writer:
                self._writer.add_scalar(f"train/{name}", value, iteration)

    def image(self, tag: str, image: np.ndarray, iteration: int) -> None:
        """Log an image (H, W, 3) uint8 in TensorBoard."""
        if self._writer:
            self._writer.add_image(tag, image, iteration, dataformats="HWC")

    def close(self) -> None:
        """Write pending events."""
        if self._writer:
            self._writer.close()


def training_grid(frames: Tensor, target: Tensor, predictions: Sequence[Tensor]) -> np.ndarray:
    """Return an image (H, W, 3) uint8, with a row of tiles for each frame: frame, predicted masks, ground truth.

    Args:
        frames: (B, T, 3, H, W), normalised.
        target: (B, T, H, W) integers.
        predictions: (B, K, H, W) masks, 0 to 1, for each of frames 2 to T.
    """
    objects = predictions[0].shape[1]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    captions = ["RGB", *(f"Mask {k + 1}" if k else "Mask" for k in range(objects)),
                *(f"GT {k + 1}" if k else "GT" for k in range(objects))]
    rows = []
    for sample in range(min(len(frames), MAX_SAMPLES)):
        for t in range(frames.shape[1]):
            ground_truth = [(target[sample, t] == k + 1).float().cpu() for k in range(objects)]
            masks = ground_truth if t == 0 else predictions[t - 1][sample].float().cpu()     # input masks in frame 1
            rgb = (frames[sample, t].float().cpu() * std + mean).permute(1, 2, 0)
            tiles = [rgb, *(mask[..., None].expand(-1, -1, 3) for mask in (*masks, *ground_truth))]
            rows.append(np.hstack([_tile(tile, f"{caption}, frame {t + 1}")
                                   for tile, caption in zip(tiles, captions, strict=True)]))
    return np.vstack(rows)


def _tile(values: Tensor, caption: str) -> np.ndarray:
    image = Image.fromarray((values.clamp(0, 1) * 255).byte().numpy()).resize((TILE, TILE))
    ImageDraw.Draw(image).text((6, 4), caption, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(image)
