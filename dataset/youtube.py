"""YouTubeVOS for evaluation."""
from __future__ import annotations

import json
from pathlib import Path

from dataset.video import Video, ground_truth_folder, image_files
from dataset.video_reader import ImageFrames
from util.cli import InputError, pluralize, warn
from util.palette import davis_palette, palette_of


def youtube_vos(root: Path, split: str, requested: bool = False) -> tuple[list[Video], bytes]:
    """The videos of a split of YouTubeVOS with all frames, and the palette of its masks.

    Args:
        root: the folder with ``all_frames`` and the splits.
        split: such as ``valid``.
        requested: read the frames that the server of the benchmark scores from ``<split>/meta.json``, if it exists.
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
    masked = {path.name for path in annotations.glob("[!.]*") if path.is_dir()}
    unseen = sorted(masked - {*names})
    if unseen:
        warn(f"{images}: {pluralize(len(unseen), 'video')} with masks in {annotations} without frames, such as "
             f"{unseen[0]}; is the archive of the frames complete?")
    meta = root / split / "meta.json"
    frames_to_submit = _requested_frames(meta) if requested and meta.is_file() else None
    missing = sorted((frames_to_submit or {}).keys() - set(names))
    if missing:
        raise InputError(f"{meta}: names {pluralize(len(missing), 'video')} without frames or masks, such as "
                         f"{missing[0]}")
    videos = []
    for name in names:
        frames = ImageFrames(image_files(images / name))
        masks = {path.stem: path for path in image_files(annotations / name, {".png"})}
        for stem in sorted(masks.keys() - set(frames.names)):
            raise InputError(f"{masks[stem]}: a mask without a frame (there is no {stem} in {images / name})")
        inputs = {index: masks[stem] for index, stem in enumerate(frames.names) if stem in masks}
        videos.append(Video(name, frames, inputs, ground_truth_folder(frames, images.parent / "Annotations" / name),
                            requested=frames_to_submit and frames_to_submit.get(name, frozenset())))
    return videos, palette_of(next(iter(videos[0].masks.values()))) or davis_palette()


def _requested_frames(meta: Path) -> dict[str, frozenset[str]]:
    """The names of the frames that the server of the benchmark scores, by video: those of all its objects."""
    try:
        videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
        requested = {name: frozenset(frame for item in video["objects"].values() for frame in item["frames"])
                     for name, video in videos.items()}
        if not all(isinstance(frame, str) for names in requested.values() for frame in names):
            raise ValueError
        return requested
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{meta}: not the meta.json of YouTubeVOS (videos, objects, frames)") from error
