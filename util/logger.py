"""What a training tells: scalars and pictures for TensorBoard, lines on the console."""
from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from util.normalization import IMAGENET_MEAN, IMAGENET_STD

TILE = 384
ROWS = 8       # samples in a picture, at most


def describe_commit(folder: Path) -> str:
    """Branch, commit and whether there are changes; also says if the folder is in no git checkout."""
    try:
        import git  # fails where there is no program of that name
    except ImportError:
        return "unknown, git is not installed"
    try:
        repository = git.Repo(folder, search_parent_directories=True)
        branch = "detached HEAD" if repository.head.is_detached else repository.active_branch.name
        dirty = ", with uncommitted changes" if repository.is_dirty() else ""
        return f"{branch} {repository.head.commit.hexsha}{dirty}"
    except (git.exc.GitError, ValueError, OSError):      # no checkout, no commit yet, not ours to read
        return "not in a git checkout"


class Logger:
    """The log of one experiment.

    Args:
        name: of the experiment; None: console lines only.
        folder: where the log folder is made.
    """

    def __init__(self, name: str | None, folder: Path = Path("log")):
        self.long_id = f"{time.strftime('%b%d_%H.%M.%S')}_{name}" if name else None
        self._name, self._writer = name or "NULL", None
        if name:
            from torch.utils.tensorboard import SummaryWriter
            self._writer = SummaryWriter(str(folder / self.long_id))

    def text(self, tag: str, text: str) -> None:
        """A note, such as the hyperparameters."""
        print(f"{self._name} - {tag}: {text}", flush=True)
        if self._writer:
            self._writer.add_text(tag, text)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Figures of an iteration."""
        for name, value in values.items():
            print(f"{self._name} - It {iteration:6d} [TRAIN] [{name}]: {value:.9g}", flush=True)
            if self._writer:
                self._writer.add_scalar(f"train/{name}" if "/" not in name else name, value, iteration)

    def picture(self, tag: str, picture: np.ndarray, iteration: int) -> None:
        """A picture (H, W, 3) uint8."""
        if self._writer:
            self._writer.add_image(tag, picture, iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is not written yet."""
        if self._writer:
            self._writer.close()


def training_grid(frames: Tensor, target: Tensor, predictions: tuple[Tensor, ...]) -> np.ndarray:
    """A row of captioned tiles for each frame of each sample: picture, predicted masks, true masks.

    Args:
        frames: (B, T, 3, H, W), normalised.
        target: (B, T, H, W) integers.
        predictions: (B, K, H, W) probabilities in frames 2 to T; frame 1 was given.

    Returns:
        (rows * TILE, columns * TILE, 3) uint8.
    """
    objects = predictions[0].shape[1]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    captions = ["RGB", *(f"Mask {k + 1}" if k else "Mask" for k in range(objects)),
                *(f"GT {k + 1}" if k else "GT" for k in range(objects))]
    rows = []
    for sample in range(min(len(frames), ROWS)):
        for t in range(frames.shape[1]):
            truth = [(target[sample, t] == k + 1).float() for k in range(objects)]
            found = truth if t == 0 else list(predictions[t - 1][sample].float().cpu())
            rgb = (frames[sample, t].float().cpu() * std + mean).permute(1, 2, 0)
            tiles = [rgb, *(mask[..., None].expand(-1, -1, 3) for mask in (*found, *(mask.cpu() for mask in truth)))]
            rows.append(np.hstack([_tile(tile, f"{caption}, frame {t + 1}") for tile, caption in zip(tiles, captions, strict=True)]))
    return np.vstack(rows)


def _tile(values: Tensor, caption: str) -> np.ndarray:
    image = Image.fromarray((values.clamp(0, 1) * 255).byte().numpy()).resize((TILE, TILE))
    ImageDraw.Draw(image).text((6, 4), caption, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(image)
