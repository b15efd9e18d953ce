"""DAVIS 2016 and 2017 for evaluation."""
from __future__ import annotations

from pathlib import Path

from dataset.video import Video, ground_truth_folder, image_files
from dataset.video_reader import ImageFrames
from util.cli import InputError
from util.palette import davis_palette, palette_of


def davis_2017(root: Path, split: str) -> tuple[list[Video], bytes]:
    """The videos of a split of DAVIS 2017 at 480p, and the palette of its masks.

    Args:
        root: the folder with ``trainval`` and ``test-dev``.
        split: ``val`` or ``testdev``.
    """
    folder, imset = (root / "trainval", "val.txt") if split == "val" else (root / "test-dev", "test-dev.txt")
    # The palette is that of the same mask as in the published script, or its standard one.
    palette = palette_of(root / "trainval" / "Annotations" / "480p" / "blackswan" / "00000.png") or davis_palette()
    names = read_list(folder / "ImageSets" / "2017" / imset)
    return [_video(folder, name, renumber=True) for name in names], palette


def davis_2016(root: Path) -> list[Video]:
    """The validation videos of DAVIS 2016, with one object each.

    They are listed in the DAVIS 2017 folder beside this one, as in the published script, or else in
    ``ImageSets/480p/val.txt``, which has a line with the paths of each frame and its mask.
    """
    shared, own = root.absolute().parent / "2017/trainval/ImageSets/2016/val.txt", root / "ImageSets/480p/val.txt"
    if shared.is_file():
        names = read_list(shared)
    elif own.is_file():
        names = list(dict.fromkeys(Path(line.split()[0]).parent.name for line in read_list(own)))
    else:
        raise InputError(f"{root}: not the DAVIS 2016 folder (neither {shared} nor {own} exists)")
    return [_video(root, name, binary=True) for name in names]


def read_list(path: Path) -> list[str]:
    """The different lines of a text file that are not empty, at least one, such as the names of videos."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path of the data set")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8") from error
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not lines:
        raise InputError(f"{path}: lists no videos")
    return lines


def _video(root: Path, name: str, **options: bool) -> Video:
    if Path(name).name != name:
        raise InputError(f"{root}: its list names {name!r}, which is not the name of a video")
    frames = ImageFrames(image_files(root / "JPEGImages" / "480p" / name))
    masks = root / "Annotations" / "480p" / name
    first = masks / f"{frames.names[0]}.png"
    if not first.is_file():
        raise InputError(f"{first}: the mask of the first frame is missing")
    return Video(name, frames, {0: first}, ground_truth_folder(frames, masks), **options)
