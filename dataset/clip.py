"""A user's own clip: a video file or a folder of images, and masks for some of its frames."""
from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dataset.image_io import IMAGE_SUFFIXES
from dataset.video import Video, image_files
from dataset.video_reader import Frames, ImageFrames
from util.cli import InputError, warn


def open_clip(video: Path | None, images: Path | None, masks: Path) -> Video:
    """The clip with its masks.

    Args:
        video: a video file, or
        images: a folder of image files, in the natural order of their names (2 before 10).
        masks: one mask, or a folder of them, named after the frames they belong to (for a video file: the frame's
            number, from 0). A single mask whose name is not like any frame's is the first frame's.

    Raises:
        InputError: something is missing or unreadable, or a mask is named after no frame.
    """
    if video is not None:
        from dataset.video_reader import VideoFrames
        frames, name = VideoFrames(video), video.stem
    else:
        files = sorted(image_files(images, IMAGE_SUFFIXES), key=lambda path: natural_order(path.name))
        frames, name = ImageFrames(files), images.resolve().name
        if len(set(frames.names)) < len(files):
            twice = next(stem for stem in frames.names if frames.names.count(stem) > 1)
            raise InputError(f"{images}: two frames are called {twice}, their masks would be too")
    clip = Video(name, frames, find_masks(frames, masks, numbered=video is not None))
    empty = clip.check()
    for index in empty:
        warn(f"{clip.masks[index]}: no object in this mask; its frame is taken for one without a mask")
    if video is None:
        _check_frames(frames)
    return replace(clip, masks={index: path for index, path in clip.masks.items() if index not in empty})


def _check_frames(frames: ImageFrames) -> None:
    """Decode every frame once, so that a broken one is found now rather than hours on."""
    shape = None
    for index, frame in enumerate(frames.read(range(len(frames.names)), workers=4)):
        if shape not in (None, frame.shape):
            raise InputError(f"{frames.paths[index]}: {frame.shape[1]}x{frame.shape[0]} pixels, "
                             f"the frames before it {shape[1]}x{shape[0]}")
        shape = frame.shape


def natural_order(name: str) -> list:
    """A sort key by which numbers in names count as numbers."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower())
            for part in re.findall(r"[0-9]+|[^0-9]+", name)] + [(2, 0, name)]


def find_masks(frames: Frames, masks: Path, numbered: bool) -> dict[int, Path]:
    """Which mask file belongs to which frame; see `open_clip`. ``numbered``: frames are called by their number."""
    if not masks.exists():
        raise InputError(f"{masks}: no such file or folder")
    index_of = {name: index for index, name in enumerate(frames.names)}
    if masks.is_file():
        index = _index(masks.stem, index_of, numbered)
        if index is None:
            patterns = {re.sub(r"\d+", "#", name) for name in frames.names}
            if re.sub(r"\d+", "#", masks.stem) in patterns:
                raise InputError(_no_frame(masks, frames))
            warn(f"{masks}: not named after a frame, taken for the first one ({frames.names[0]})")
            index = 0
        return {index: masks}
    found: dict[int, Path] = {}
    for path in image_files(masks, IMAGE_SUFFIXES):
        index = _index(path.stem, index_of, numbered)
        if index is None:
            raise InputError(_no_frame(path, frames))
        if index in found:
            raise InputError(f"{path}: a second mask for the frame of {found[index].name}")
        found[index] = path
    return found


def _index(stem: str, index_of: dict[str, int], numbered: bool) -> int | None:
    if numbered and stem.isdecimal():
        return int(stem) if int(stem) < len(index_of) else None
    return index_of.get(stem)


def _no_frame(path: Path, frames: Frames) -> str:
    return (f"{path}: a mask named after no frame (frames are called {frames.names[0]} to {frames.names[-1]}, "
            f"{len(frames.names)} in all)")
