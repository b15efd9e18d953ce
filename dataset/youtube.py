"""YouTubeVOS for evaluation."""
from __future__ import annotations

from pathlib import Path

from dataset.image_io import IMAGE_SUFFIXES
from dataset.video import Video, ground_truth_folder, image_files
from dataset.video_reader import ImageFrames
from util.cli import InputError, warn
from util.palette import davis_palette, palette_of


def youtube_vos(root: Path, split: str) -> list[Video]:
    """The videos of a split, every frame of them, with the masks of objects on the frames they first appear on.

    Args:
        root: the folder with ``all_frames`` and the splits.
        split: such as ``valid``.

    Raises:
        InputError: something of the layout is missing, or a mask is named after no frame.
    """
    images, annotations = root / "all_frames" / f"{split}_all_frames" / "JPEGImages", root / split / "Annotations"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; is the data set there?")
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    without = [name for name in names if not (annotations / name).is_dir()]
    if without and annotations.is_dir():
        warn(f"{annotations}: {len(without)} videos have no masks and are left out, such as {without[0]}")
        names = [name for name in names if name not in without]
    if not names:
        raise InputError(f"{images}: no videos in it")
    videos = []
    for name in names:
        frames = ImageFrames(image_files(images / name, IMAGE_SUFFIXES))
        index_of = {stem: index for index, stem in enumerate(frames.names)}
        masks = {}
        for path in image_files(annotations / name, {".png"}):
            if path.stem not in index_of:
                raise InputError(f"{path}: a mask without a frame (there is no {path.stem} in {images / name})")
            masks[index_of[path.stem]] = path
        videos.append(Video(name, frames, masks, ground_truth_folder(frames, images.parent / "Annotations" / name)))
    return videos


def youtube_palette(videos: list[Video]) -> bytes:
    """The palette of the data set's masks, or DAVIS's."""
    return palette_of(next(iter(videos[0].masks.values()))) or davis_palette()
