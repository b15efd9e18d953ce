"""The training data of the three stages, as one data set that is sampled by (epoch, index)."""
from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.davis import read_list
from dataset.sampling import frame_distance
from dataset.static_dataset import StaticDataset, static_pairs
from dataset.transforms import SIZE
from dataset.vos_dataset import FAULTY_YOUTUBE, VOSDataset, video_pairs
from util.cli import InputError, warn
from util.opencv import cv2

# Folder, whether it has a folder for each class, how many times it counts.
STATIC = (("fss", True, 1), ("DUTS-TR", False, 1), ("DUTS-TE", False, 1), ("ecssd", False, 1),
          ("BIG_small", False, 5), ("HRSOD_small", False, 5))


class TrainingSet(Dataset):
    """Several data sets, some several times, as one whose items are drawn by (epoch, index).

    What is drawn depends on the seed, the epoch and the index only. An item that cannot be used is replaced by the
    next one that can, and says so.

    Args:
        parts: data sets and how many times each counts.
        seed: of all that is drawn.
    """

    def __init__(self, parts: Sequence[tuple[StaticDataset | VOSDataset, int]], seed: int):
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


def static_stage(root: Path, seed: int, size: int = SIZE, length: int = 3) -> TrainingSet:
    """Stage 0: pictures of salient objects. Folders that are not there are left out with a warning.

    Raises:
        InputError: none of them is there.
    """
    there = [(name, by_class, times) for name, by_class, times in STATIC if (root / name).is_dir()]
    if not there:
        raise InputError(f"{root}: no such folder, or none of {', '.join(name for name, _, _ in STATIC)} in it")
    absent = [name for name, _, _ in STATIC if not (root / name).is_dir()]
    if absent:
        warn(f"{root}: training without {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not there")
    return TrainingSet([(StaticDataset(static_pairs(root / name, by_class), size, length), times)
                        for name, by_class, times in there], seed)


def bl30k_stage(root: Path, epochs: Callable[[int], int], seed: int, size: int = SIZE, length: int = 3,
                files_every: int = 1) -> TrainingSet:
    """Stage 1: rendered videos.

    Args:
        root: with JPEGImages and Annotations.
        epochs: of the whole training, from the number of samples.
        seed: of all that is drawn.
        size: of the frames.
        length: frames of a sample.
        files_every: only every so many frames there is a file, see `frame_distance`.
    """
    videos = video_pairs(root / "JPEGImages", root / "Annotations")
    distance = partial(frame_distance, epochs=epochs(len(videos)), last_phase=0.8, files_every=files_every)
    return TrainingSet([(VOSDataset(videos, distance, 0.25, skip_small=True, size=size, length=length), 1)], seed)


def video_stage(davis: Path, youtube: Path, epochs: Callable[[int], int], seed: int, size: int = SIZE,
                length: int = 3) -> TrainingSet:
    """Stage 2: DAVIS 2017 (five times) and YouTubeVOS, of which every fifth frame is annotated."""
    root = davis / "2017" / "trainval"
    ours = video_pairs(root / "JPEGImages" / "480p", root / "Annotations" / "480p",
                       read_list(root / "ImageSets" / "2017" / "train.txt"))
    theirs = video_pairs(youtube / "train_480p" / "JPEGImages", youtube / "train_480p" / "Annotations",
                         without=FAULTY_YOUTUBE)
    total = epochs(5 * len(ours) + len(theirs))
    distance = partial(frame_distance, epochs=total, last_phase=0.9)
    return TrainingSet([(VOSDataset(ours, distance, size=size, length=length), 5),
                        (VOSDataset(theirs, partial(distance, files_every=5), size=size, length=length), 1)], seed)
