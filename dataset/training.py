"""Training samples: T frames of a video, or made of one picture; T is 3 if not said otherwise.

A sample is a dictionary of

  frames     (T, 3, H, W) float, normalised
  masks      (K, H, W) float, the objects in the first frame
  target     (T, H, W) integers 0..K, which object each pixel of each frame belongs to
  selector   (K,) float, 1 where there is such an object
  skipped    the files that could not be used, one message each, and were replaced by other samples
"""
from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from dataset.images import IMAGE_SUFFIXES, read_frame, read_mask
from dataset.schedule import sample_frames
from dataset.transforms import SIZE, normalise, static_frame, static_sequence, video_frame, video_sequence
from dataset.video import image_files
from util.errors import InputError, counted, warn
from util.opencv import cv2

TRIES = 5                        # to find a part of a video with an object in it
# Annotated wrongly: left out, as the published training does.
FAULTY_YOUTUBE = {"01e64dd36a", "04259896e2", "1336440745", "5bc77844da", "5ee23ca60e", "738e5a0a14", "f8af30d4b6"}


def draw(low: int, high: int) -> int:
    """A uniform integer, both ends included."""
    return int(torch.randint(low, high + 1, ()))


class StaticImages(Dataset):
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
        frames, masks = zip(*(self.frame(image, mask) for _ in range(self.length)))
        masks = torch.cat(masks).float() / 255
        return {"frames": normalise(torch.stack(frames)), "masks": masks[:1], "target": (masks > 0.5).long(),
                "selector": torch.ones(1)}


def _soft_mask(path: Path) -> np.ndarray:
    """(H, W) uint8, the object's share of each pixel; a mask of labels, none above 127, counts as 0 and 255."""
    grey = read_frame(path)
    if (grey == grey[..., :1]).all() and grey.max() > 127:
        return grey[..., 0]
    return ((read_mask(path) > 0) * 255).astype(np.uint8)


class TrainingVideos(Dataset):
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
            frames, labels = self._augment(*zip(*(video[position] for position in chosen)))
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
        return {"frames": normalise(frames), "masks": masks, "target": target,
                "selector": torch.tensor([1.0, float(len(objects) > 1)])}

    def _augment(self, paths: Sequence[Path], mask_paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
        """Frames (T, 3, H, W) uint8 and labels (T, H, W)."""
        images, masks = [read_frame(path) for path in paths], [read_mask(path) for path in mask_paths]
        for path, image in zip((*paths, *mask_paths), (*images, *masks)):
            if image.shape[:2] != images[0].shape[:2]:
                raise InputError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, where {paths[0].name} has "
                                 f"{images[0].shape[1]}x{images[0].shape[0]}")
        frames = tv_tensors.Image(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
        labels = tv_tensors.Mask(torch.from_numpy(np.stack(masks).astype(np.uint8))[:, None])
        frames, labels = self.sequence(frames, labels)
        pairs = [self.frame(tv_tensors.Image(frame), tv_tensors.Mask(label)) for frame, label in zip(frames, labels)]
        frames, labels = (torch.stack([part.as_subclass(Tensor) for part in parts]) for parts in zip(*pairs))
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


class TrainingSet(Dataset):
    """Several data sets, some several times, as one whose items are drawn by (epoch, index).

    What is drawn depends on the seed, the epoch and the index only. An item that cannot be used is replaced by the
    next one that can, and says so.

    Args:
        parts: data sets and how many times each counts.
        seed: of all that is drawn.
    """

    def __init__(self, parts: Sequence[tuple[StaticImages | TrainingVideos, int]], seed: int):
        self.items = [(part, index) for part, times in parts for _ in range(times) for index in range(len(part))]
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        skipped = []
        with torch.random.fork_rng(devices=[]):
            # One number of 64 bits: an epoch's and a sample's draws are unrelated to those of any other.
            entropy = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)
            torch.manual_seed(int(entropy[0]) % 2 ** 63)
            for step in range(len(self)):
                part, position = self.items[(index + step) % len(self)]
                try:
                    return {**part.sample(position, epoch), "skipped": skipped}
                except InputError as error:
                    skipped.append(str(error))
        raise InputError(f"none of the {len(self)} training samples can be used; the first: {skipped[0]}")


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the tensors, join the messages."""
    batch = {name: torch.stack([sample[name] for sample in samples])
             for name in ("frames", "masks", "target", "selector")}
    return {**batch, "skipped": [message for sample in samples for message in sample["skipped"]]}


def start_worker(_: int) -> None:
    """A worker computes in one thread, and leaves it to the process that saves to stop, when all are told to."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def end_workers() -> None:
    """Kill what loading processes there are: to be called at exit, which otherwise waits for those it tells to stop."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)          # PyTorch's handler takes it for an accident
    for worker in multiprocessing.active_children():
        worker.kill()


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
        warn(f"{images}: left out {counted(len(unusable), 'video')}, the first: {unusable[0]}")
    if short:
        warn(f"{images}: {counted(len(short), 'video')} with fewer than 3 frames with masks left out, "
             f"such as {short[0]}")
    if not videos:
        raise InputError(f"{images}: no video with three frames and masks in it")
    return videos
