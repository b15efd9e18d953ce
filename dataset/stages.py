"""The data of the three stages of training."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from dataset.davis import read_list
from dataset.schedule import frame_distance
from dataset.training import FAULTY_YOUTUBE, StaticImages, TrainingSet, TrainingVideos, static_pairs, video_pairs
from dataset.transforms import SIZE
from util.errors import InputError, warn

# Folder, whether it has a folder for each class, how many times it counts.
STATIC = (("fss", True, 1), ("DUTS-TR", False, 1), ("DUTS-TE", False, 1), ("ecssd", False, 1),
          ("BIG_small", False, 5), ("HRSOD_small", False, 5))


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
    return TrainingSet([(StaticImages(static_pairs(root / name, by_class), size, length), times)
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
    return TrainingSet([(TrainingVideos(videos, distance, 0.25, skip_small=True, size=size, length=length), 1)], seed)


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
    return TrainingSet([(TrainingVideos(ours, distance, size=size, length=length), 5),
                        (TrainingVideos(theirs, partial(distance, files_every=5), size=size, length=length), 1)], seed)
