"""A user's own clip: a video file or a folder of images, and masks for some of its frames."""
from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dataset.image_io import read_image
from dataset.video import Video, ground_truth_folder, image_files
from dataset.video_reader import ImageFrames, VideoFrames
from util.cli import InputError, warn


def open_clip(video: Path | None, images: Path | None, masks: Path) -> Video:
    """The clip with its masks; all files are read once, so that a damaged one is found before the work starts.

    Args:
        video: a video file; None for
        images: a folder of image files, in the natural order of their names (2 before 10).
        masks: a mask or a folder of masks, named after their frames (of a video file: the frame's index, from 0). A
            single mask that is not named like a frame belongs to the first one.
    """
    if video is not None:
        frames, name = VideoFrames(video), video.stem
    else:
        frames, name = image_frames(images), images.resolve().name
    clip = Video(name, frames, find_masks(frames.names, masks, numbered=video is not None))
    empty = clip.check()
    for index in empty:
        warn(f"{clip.masks[index]}: no object in this mask; it is ignored")
    if video is None:
        for _ in frames.read(range(len(frames.names)), workers=4):
            pass
    return replace(clip, masks={index: path for index, path in clip.masks.items() if index not in empty})


def with_ground_truth(clip: Video, folder: Path) -> Video:
    """The clip with a folder of ground-truth masks, named as the masks of its frames are written."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    if ground_truth_folder(clip.frames, folder) is None:
        raise InputError(f"{folder}: scores need ground-truth masks of more than two frames, with names such as "
                         f"{clip.frames.names[0]}.png")
    return replace(clip, ground_truth=folder)


def image_frames(folder: Path) -> ImageFrames:
    """The images of a folder, whose names without suffix must differ."""
    files = image_files(folder)
    frames = ImageFrames(files, exif_rotation=True)
    if len(set(frames.names)) < len(files):
        name = next(name for name in frames.names if frames.names.count(name) > 1)
        raise InputError(f"{folder}: two frames are named {name}, so their masks would have the same name")
    if len(files) == 1:
        image = read_image(files[0])
        if getattr(image, "is_animated", False) and image.format != "MPO":      # phones save photos as MPO
            raise InputError(f"{files[0]}: an animation, of which only the first frame would be used; save its frames "
                             f"as images, or as a video for --video")
    return frames


def find_masks(names: list[str], masks: Path, numbered: bool, count: int | None = None) -> dict[int, Path]:
    """The mask files by the index of their frame, see `open_clip`.

    Args:
        names: of the frames.
        masks: a file or a folder.
        numbered: frames are named by their index.
        count: largest possible number of frames, if it is not known; None: that of the names.
    """
    if not masks.exists():
        raise InputError(f"{masks}: no such file or folder")
    index_of = {name: index for index, name in enumerate(names)}
    found: dict[int, Path] = {}
    for path in [masks] if masks.is_file() else image_files(masks):
        index = int(path.stem) if numbered and path.stem.isdecimal() else index_of.get(path.stem, -1)
        if not 0 <= index < (count or len(names)):
            patterns = {re.sub(r"\d+", "#", name) for name in names}
            if path != masks or re.sub(r"\d+", "#", path.stem) in patterns:
                raise InputError(f"{path}: no frame has this name (frames are named {names[0]} to "
                                 f"{names[-1]}, {len(names)} in total)")
            warn(f"{path}: not named after a frame, used for the first one ({names[0]})")
            index = 0
        if index in found:
            raise InputError(f"{path}: a second mask for the frame of {found[index].name}")
        found[index] = path
    return found
