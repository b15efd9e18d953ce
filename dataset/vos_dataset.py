"""Training samples from annotated videos (stages 1 and 2)."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from dataset.image_io import read_frame, read_mask
from dataset.sampling import TrainingSample, sample_frames
from dataset.transforms import SIZE, video_frame, video_sequence
from dataset.video import image_files
from util.cli import InputError, pluralize, warn
from util.normalization import normalize

MAX_TRIES = 5                    # to draw frames and a crop with an object
# Faulty annotations, excluded as in the published training.
FAULTY_YOUTUBE = {"01e64dd36a", "04259896e2", "1336440745", "5bc77844da", "5ee23ca60e", "738e5a0a14", "f8af30d4b6"}


def draw(low: int, high: int) -> int:
    """Return a uniform integer from the global random state, both ends included."""
    return int(torch.randint(low, high + 1, ()))


def draw_objects(candidates: Sequence[int]) -> list[int]:
    """Return up to two random ones of the candidates."""
    return [candidates[position] for position in torch.randperm(len(candidates))[:2].tolist()]


class VOSDataset:
    """Videos with masks for at least three frames.

    Args:
        videos: the (frame, mask) files of each video, in the order of time.
        max_distance: maximum distance of frames at an epoch, counted in files.
        smallest_crop: minimum area of a crop, as a fraction of the frame.
        skip_small: ignore objects that are too small to learn from, as for BL30K.
        size, length: pixels and number of the frames in a sample.
    """

    def __init__(self, videos: Sequence[Sequence[tuple[Path, Path]]], max_distance: Callable[[int], int],
                 smallest_crop: float = 0.36, skip_small: bool = False, size: int = SIZE, length: int = 3):
        self.videos, self.max_distance, self.skip_small, self.length = videos, max_distance, skip_small, length
        self.sequence, self.frame = video_sequence(smallest_crop, size), video_frame()

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, index: int, epoch: int) -> TrainingSample:
        """Return a sample, drawn from the global random state.

        Raises:
            InputError: a file cannot be used, or no mask of the video has an object.
        """
        video = self.videos[index]
        for _ in range(MAX_TRIES):
            chosen = sample_frames(len(video), self.max_distance(epoch), draw, self.length)
            frames, labels = self._load([video[position] for position in chosen])
            labels = labels[:, 0]
            candidates = self._candidates(labels)
            if candidates:
                break
        else:
            if not any(read_mask(mask).any() for _, mask in video):
                raise InputError(f"{video[0][1].parent}: no object in these masks")
        return self._sample(frames, labels, draw_objects(candidates))

    def _sample(self, frames: Tensor, labels: Tensor, objects: list[int]) -> TrainingSample:
        """Return the sample of augmented frames (T, 3, H, W) and labels (T, H, W) with the given objects."""
        target = torch.zeros_like(labels)
        for number, label in enumerate(objects, 1):
            target[labels == label] = number
        masks = torch.stack([(target[0] == number).float() for number in (1, 2)])
        # In a sample without objects, which is background only, the first object is empty.
        return {"frames": normalize(frames), "masks": masks, "target": target,
                "selector": torch.tensor([1.0, float(len(objects) > 1)]), "skipped": []}

    def _load(self, files: Sequence[tuple[Path, ...]]) -> tuple[Tensor, Tensor]:
        """Return augmented frames (T, 3, H, W) uint8 and labels (T, M, H, W).

        ``files`` are those of T frames: the image, and M masks.
        """
        paths, *mask_paths = zip(*files, strict=True)
        images, masks = [read_frame(path) for path in paths], [[read_mask(path) for path in row] for row in mask_paths]
        for path, image in zip(sum(mask_paths, paths), sum(masks, images), strict=True):
            if image.shape[:2] != images[0].shape[:2]:
                raise InputError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, but {paths[0].name} has "
                                 f"{images[0].shape[1]}x{images[0].shape[0]}")
        frames = tv_tensors.Image(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        labels = tv_tensors.Mask(torch.from_numpy(np.stack(masks, 1).astype(np.uint8)))
        frames, labels = self.sequence(frames, labels)
        pairs = [self.frame(tv_tensors.Image(frame), tv_tensors.Mask(label))
                 for frame, label in zip(frames, labels, strict=True)]
        frames, labels = (torch.stack([part.as_subclass(Tensor) for part in parts])
                          for parts in zip(*pairs, strict=True))
        return frames, labels.long()

    def _candidates(self, labels: Tensor) -> list[int]:
        """Return the objects in the first frame that can be learnt from."""
        present = [label for label in labels[0].unique().tolist() if label]
        if not self.skip_small:
            return present

        def is_large_enough(label: int) -> bool:
            first, *others = (labels == label).sum((1, 2)).tolist()
            return first > 30 * 30 or (first > 10 * 10 and max(others) < 20 * 20)
        return [label for label in present if is_large_enough(label)]


def video_pairs(images: Path, masks: Path, names: Sequence[str] | None = None,
                without: set[str] = frozenset()) -> list[list[tuple[Path, Path]]]:
    """Return the (frame, mask) files of each video, with warnings of what cannot be used.

    Args:
        images, masks: folders with one folder per video.
        names: of the videos; None: all but those in ``without``.

    Raises:
        InputError: a folder does not exist, or no video has three frames with masks.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    if names is None:
        names = sorted({entry.name for entry in os.scandir(masks) if entry.is_dir() and entry.name[0] != "."} - without)
    videos, short, unmatched, errors = [], [], [], []
    for name in names:
        try:
            frames = {path.stem: path for path in image_files(images / name)}
            annotated = image_files(masks / name, {".png"})
        except InputError as error:
            errors.append(str(error))
            continue
        unmatched += [path for path in annotated if path.stem not in frames]
        pairs = [(frames[path.stem], path) for path in annotated if path.stem in frames]
        if len(pairs) < 3:
            short.append(name)
        else:
            videos.append(pairs)
    if unmatched:
        warn(f"{masks}: {pluralize(len(unmatched), 'mask')} without a frame left out, the first: {unmatched[0]}")
    if errors:
        warn(f"{images}: {pluralize(len(errors), 'video')} left out, the first: {errors[0]}")
    if short:
        warn(f"{images}: {pluralize(len(short), 'video')} with fewer than 3 frames with masks left out, "
             f"the first: {short[0]}")
    if not videos:
        raise InputError(f"{images}: no video with three frames and masks in it")
    return videos
