"""DAVIS 2016 and 2017 for evaluation."""
from __future__ import annotations

from pathlib import Path

from dataset.image_io import IMAGE_SUFFIXES
from dataset.video import Video, ground_truth_folder, image_files
from dataset.video_reader import ImageFrames
from util.cli import InputError
from util.palette import davis_palette, palette_of


def davis_2017(root: Path, split: str) -> list[Video]:
    """The videos of a split of DAVIS 2017, 480p.

    Args:
        root: the folder with ``trainval`` and ``test-dev``.
        split: ``val`` or ``testdev``.

    Raises:
        InputError: something of the layout is missing.
    """
    root, imset = (root / "trainval", "val.txt") if split == "val" else (root / "test-dev", "test-dev.txt")
    names = read_list(root / "ImageSets" / "2017" / imset)
    return [_video(root, name, renumber=True) for name in names]


def davis_2017_palette(root: Path) -> bytes:
    """The data set's own palette (of blackswan's first mask), or the same from its rule."""
    return palette_of(root / "trainval" / "Annotations" / "480p" / "blackswan" / "00000.png") or davis_palette()


def davis_2016(root: Path) -> list[Video]:
    """The validation videos of DAVIS 2016, one object each.

    The set is listed by the 2017 folder beside it, or else by its own ``ImageSets/480p/val.txt``, whose lines name
    every frame and mask.

    Raises:
        InputError: something of the layout is missing.
    """
    shared, own = root.parent / "2017/trainval/ImageSets/2016/val.txt", root / "ImageSets" / "480p" / "val.txt"
    if shared.is_file():
        names = read_list(shared)
    elif own.is_file():
        names = list(dict.fromkeys(Path(line.split()[0]).parent.name for line in read_list(own)))
    else:
        raise InputError(f"{root}: not the DAVIS 2016 folder (neither {shared} nor {own} is there)")
    return [_video(root, name, binary=True) for name in names]


def read_list(path: Path) -> list[str]:
    """The lines of a file that lists videos.

    Raises:
        InputError: there is none, or it is empty.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; is the data set there?")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not lines:
        raise InputError(f"{path}: lists no videos")
    return lines


def _video(root: Path, name: str, **options: bool) -> Video:
    frames = ImageFrames(image_files(root / "JPEGImages" / "480p" / name, IMAGE_SUFFIXES))
    masks = root / "Annotations" / "480p" / name
    first = masks / f"{frames.names[0]}.png"
    if not first.is_file():
        raise InputError(f"{first}: the first frame's mask is missing")
    return Video(name, frames, {0: first}, ground_truth_folder(frames, masks), **options)
