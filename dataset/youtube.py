"""YouTubeVOS for evaluation."""
from __future__ import annotations

from pathlib import Path

from dataset.video import Video, ground_truth_folder, image_files
from dataset.video_reader import ImageFrames
from util.cli import InputError, warn
from util.palette import davis_palette, palette_of


def youtube_vos(root: Path, split: str) -> tuple[list[Video], bytes]:
    """The videos of a split of YouTubeVOS with all frames, and the palette of its masks.

    Args:
        root: the folder with ``all_frames`` and the splits.
        split: such as ``valid``.
    """
    images, annotations = root / "all_frames" / f"{split}_all_frames" / "JPEGImages", root / split / "Annotations"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; check the path of the data set")
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    without = [name for name in names if not (annotations / name).is_dir()]
    if without and annotations.is_dir():
        warn(f"{annotations}: {len(without)} videos have no masks and are left out, such as {without[0]}")
        names = [name for name in names if name not in without]
    if not names:
        raise InputError(f"{images}: no videos in it")
    videos = []
    for name in names:
        frames = ImageFrames(image_files(images / name))
        masks = {path.stem: path for path in image_files(annotations / name, {".png"})}
        for stem in sorted(masks.keys() - set(frames.names)):
            raise InputError(f"{masks[stem]}: a mask without a frame (there is no {stem} in {images / name})")
        inputs = {index: masks[stem] for index, stem in enumerate(frames.names) if stem in masks}
        videos.append(Video(name, frames, inputs, ground_truth_folder(frames, images.parent / "Annotations" / name)))
    return videos, palette_of(next(iter(videos[0].masks.values()))) or davis_palette()
