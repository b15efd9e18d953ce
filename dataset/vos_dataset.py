"""Training samples of annotated videos (stages 1 and 2)."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from dataset.image_io import IMAGE_SUFFIXES, read_frame, read_mask
from dataset.sampling import sample_frames
from dataset.transforms import SIZE, video_frame, video_sequence
from dataset.video import image_files
from util.cli import InputError, pluralize, warn
from util.normalization import normalize

TRIES = 5                        # to find a part of a video with an object in it
# Annotated wrongly: left out, as the published training does.
FAULTY_YOUTUBE = {"01e64dd36a", "04259896e2", "1336440745", "5bc77844da", "5ee23ca60e", "738e5a0a14", "f8af30d4b6"}


def draw(low: int, high: int) -> int:
    """A uniform integer, both ends included."""
    return int(torch.randint(low, high + 1, ()))


class VOSDataset(Dataset):
    """Videos of which several frames have masks.

    Args:
        videos: the (frame, mask) files of each, in the order of time.
        distance: the maximum distance of frames at an epoch, counted in files.
        smallest_crop: share of a frame's area that is seen at least.
        skip_small: pass over objects that are too small to be learnt from, as for BL30K.
        size: of the frames.
        length: frames of a sample.
    """

    def __init__(self, videos: Sequence[Sequence[tuple[Path, Path]]], distance: Callable[[int], int],
                 smallest_crop: float = 0.36, skip_small: bool = False, size: int = SIZE, length: int = 3):
        self.videos, self.distance, self.skip_small, self.length = videos, distance, skip_small, length
        self.sequence, self.frame = video_sequence(smallest_crop, size), video_frame()

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, index: int, epoch: int) -> dict[str, Any]:
        """A sample from the global random state.

        Raises:
            InputError: a file cannot be used, or no mask that was tried has an object.
        """
        video = self.videos[index]
        for _ in range(TRIES):
            chosen = sample_frames(len(video), self.distance(epoch), draw, self.length)
            frames, labels = self._augment(*zip(*(video[position] for position in chosen), strict=True))
            candidates = self._candidates(labels)
            if candidates:
                break
        else:
            if not any(read_mask(mask).any() for _, mask in video):
                raise InputError(f"{video[0][1].parent}: no object in these masks")
        objects = [candidates[place] for place in torch.randperm(len(candidates))[:2].tolist()]
        target = torch.zeros_like(labels)
        for number, label in enumerate(objects, 1):
            target[labels == label] = number
        masks = torch.stack([(target[0] == number).float() for number in (1, 2)])
        # A sample without any object is background only; the first object then is an empty one.
        return {"frames": normalize(frames), "masks": masks, "target": target,
                "selector": torch.tensor([1.0, float(len(objects) > 1)])}

    def _augment(self, paths: Sequence[Path], mask_paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
        """Frames (T, 3, H, W) uint8 and labels (T, H, W)."""
        images, masks = [read_frame(path) for path in paths], [read_mask(path) for path in mask_paths]
        for path, image in zip((*paths, *mask_paths), (*images, *masks), strict=True):
            if image.shape[:2] != images[0].shape[:2]:
                raise InputError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, where {paths[0].name} has "
                                 f"{images[0].shape[1]}x{images[0].shape[0]}")
        frames = tv_tensors.Image(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        labels = tv_tensors.Mask(torch.from_numpy(np.stack(masks).astype(np.uint8))[:, None])
        frames, labels = self.sequence(frames, labels)
        pairs = [self.frame(tv_tensors.Image(frame), tv_tensors.Mask(label)) for frame, label in zip(frames, labels, strict=True)]
        frames, labels = (torch.stack([part.as_subclass(Tensor) for part in parts]) for parts in zip(*pairs, strict=True))
        return frames, labels[:, 0].long()

    def _candidates(self, labels: Tensor) -> list[int]:
        """The objects in the first frame that can be learnt from."""
        present = [label for label in labels[0].unique().tolist() if label]
        if not self.skip_small:
            return present

        def worth(label: int) -> bool:
            first, *others = (labels == label).sum((1, 2)).tolist()
            return first > 30 * 30 or (first > 10 * 10 and max(others) < 20 * 20)
        return [label for label in present if worth(label)]


def video_pairs(images: Path, masks: Path, names: Sequence[str] | None = None,
                without: set[str] = frozenset()) -> list[list[tuple[Path, Path]]]:
    """The annotated frames of each video in a folder, with their masks.

    Args:
        names: only these videos; None: all there are.
        without: but not these.

    Raises:
        InputError: a folder is missing, or no video has three frames with masks.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    if names is None:
        names = sorted(entry.name for entry in os.scandir(masks) if entry.is_dir() and entry.name[0] != ".")
    videos, short, lonely, unusable = [], [], [], []
    for name in names:
        if name in without:
            continue
        try:
            frames = {path.stem: path for path in image_files(images / name, IMAGE_SUFFIXES)}
            annotated = image_files(masks / name, {".png"})
        except InputError as error:
            unusable.append(str(error))
            continue
        lonely += [path for path in annotated if path.stem not in frames]
        pairs = [(frames[path.stem], path) for path in annotated if path.stem in frames]
        if len(pairs) < 3:
            short.append(name)
        else:
            videos.append(pairs)
    if lonely:
        warn(f"{masks}: {len(lonely)} masks have no frame and are left out, the first: {lonely[0]}")
    if unusable:
        warn(f"{images}: left out {pluralize(len(unusable), 'video')}, the first: {unusable[0]}")
    if short:
        warn(f"{images}: {pluralize(len(short), 'video')} with fewer than 3 frames with masks left out, "
             f"such as {short[0]}")
    if not videos:
        raise InputError(f"{images}: no video with three frames and masks in it")
    return videos
