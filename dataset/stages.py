"""The training data of the three stages, each as one data set that is indexed by (epoch, index)."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dataset.davis import read_list
from dataset.rollouts import RolloutDataset
from dataset.sampling import TrainingSample, max_frame_distance
from dataset.static_dataset import StaticDataset, static_pairs
from dataset.transforms import SIZE
from dataset.vos_dataset import FAULTY_YOUTUBE, VOSDataset, video_pairs
from util.cli import InputError, ignore_signals, warn
from util.opencv import cv2

# Folder, whether it has one folder per class, repetitions.
STATIC = (("fss", True, 1), ("DUTS-TR", False, 1), ("DUTS-TE", False, 1), ("ecssd", False, 1),
          ("BIG_small", False, 5), ("HRSOD_small", False, 5))


class TrainingSet(Dataset):
    """The concatenation of data sets, some of them repeated, indexed by (epoch, index).

    The random draws for a sample depend only on the seed, the epoch and the index. A sample that cannot be used is
    replaced by the next one that can. If there is none, an InputError is returned: a loading worker turns errors that
    are raised into text.
    """

    def __init__(self, parts: Sequence[tuple[StaticDataset | VOSDataset, int]], seed: int):
        self.items = [(part, index) for part, times in parts for _ in range(times) for index in range(len(part))]
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample | InputError:
        epoch, index = key
        skipped = []
        with torch.random.fork_rng(devices=[]):
            # One 64-bit number per sample, so that its draws are independent of those of any other.
            entropy = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)
            torch.manual_seed(int(entropy[0]) % 2 ** 63)
            for step in range(len(self)):
                part, position = self.items[(index + step) % len(self)]
                try:
                    return {**part.sample(position, epoch), "skipped": skipped}
                except InputError as error:
                    skipped.append(str(error))
        return InputError(f"none of the {len(self)} training samples can be used; the first: {skipped[0]}")


def collate(samples: list[TrainingSample | InputError]) -> TrainingSample | InputError:
    """Return a batch: stacked tensors, concatenated messages; or the first InputError among the samples."""
    failures = [sample for sample in samples if isinstance(sample, InputError)]
    if failures:
        return failures[0]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0] if name != "skipped"}
    return {**batch, "skipped": [message for sample in samples for message in sample["skipped"]]}


def start_worker(_: int) -> None:
    """Initialise a loading worker: one thread, and only the main process handles signals."""
    ignore_signals()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@contextmanager
def batches(loader: DataLoader) -> Iterator[Iterator[TrainingSample | InputError]]:
    """Iterate over the batches; the workers end with the block.

    Left to Python's exit, they would be sent SIGTERM, which they ignore, and waited for without end.
    """
    iterator = iter(loader)
    try:
        yield iterator
    finally:
        if loader.num_workers:
            iterator._shutdown_workers()


def static_stage(root: Path, seed: int, size: int = SIZE, length: int = 3) -> TrainingSet:
    """Return the data of stage 0, static images, with a warning of folders that do not exist.

    Raises (as do the other stages):
        InputError: there is no usable data.
    """
    found = [(name, by_class, times) for name, by_class, times in STATIC if (root / name).is_dir()]
    if not found:
        raise InputError(f"{root}: no such folder, or none of {', '.join(name for name, _, _ in STATIC)} in it")
    missing = [name for name, _, _ in STATIC if not (root / name).is_dir()]
    if missing:
        warn(f"{root}: training without {', '.join(missing)}: no such {'folder' if len(missing) == 1 else 'folders'}")
    return TrainingSet([(StaticDataset(static_pairs(root / name, by_class), size, length), times)
                        for name, by_class, times in found], seed)


def bl30k_stage(root: Path, epochs: Callable[[int], int], seed: int, size: int = SIZE, length: int = 3,
                max_distance: int | None = None) -> TrainingSet:
    """Return the data of stage 1, BL30K.

    Args:
        epochs: maps the number of samples to the epochs of the whole training.
        max_distance: of frames, see `max_frame_distance`.
    """
    videos = video_pairs(root / "JPEGImages", root / "Annotations")
    distance = partial(max_frame_distance, epochs=epochs(len(videos)), last_phase=0.8, limit=max_distance)
    return TrainingSet([(VOSDataset(videos, distance, 0.25, skip_small=True, size=size, length=length), 1)], seed)


def davis_training_videos(root: Path) -> list[list[tuple[Path, Path]]]:
    """Return the (frame, mask) files of each training video in the DAVIS folder that contains ``2017``."""
    root = root / "2017" / "trainval"
    return video_pairs(root / "JPEGImages" / "480p", root / "Annotations" / "480p",
                       read_list(root / "ImageSets" / "2017" / "train.txt"))


def video_stage(davis: Path, youtube: Path, epochs: Callable[[int], int], seed: int, size: int = SIZE,
                length: int = 3, max_distance: int | None = None, rollouts: Path | None = None) -> TrainingSet:
    """Return the data of stage 2: DAVIS 2017 (five times) and YouTubeVOS (every fifth frame); see `bl30k_stage`.

    ``rollouts``: those of the DAVIS videos, see `RolloutDataset`; None: train without.
    """
    davis_videos = davis_training_videos(davis)
    youtube_videos = video_pairs(youtube / "train_480p" / "JPEGImages", youtube / "train_480p" / "Annotations",
                                 without=FAULTY_YOUTUBE)
    total = epochs(5 * len(davis_videos) + len(youtube_videos))
    distance = partial(max_frame_distance, epochs=total, last_phase=0.9, limit=max_distance)
    davis_data = (RolloutDataset(davis_videos, distance, rollouts, size=size, length=length) if rollouts else
                  VOSDataset(davis_videos, distance, size=size, length=length))
    return TrainingSet([
        (davis_data, 5),
        (VOSDataset(youtube_videos, partial(distance, files_every=5), size=size, length=length), 1)], seed)
