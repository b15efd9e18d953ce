"""Export of an annotation: palette masks, black-and-white masks, cut-outs, and an overlay video."""
from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from annotation.project import Project
from dataset.image_io import read_mask, write_mask
from dataset.video import Video
from inference.overlay import write_overlay
from util.files import atomic_folder

KINDS = ("masks", "binary", "cutouts", "overlay")


def export(project: Project, kinds: list[str], on_frame: Callable[[], None]) -> Path:
    """Write every kind to ``export/<kind>`` in the folder of the annotation, and return ``export``.

    masks: ``<frame>.png``, as `propagate.py` writes them. binary and cutouts: ``object_<label>/<frame>.png``, black
    and white, and RGBA. overlay: ``overlay.mp4`` and ``contact_sheet.png``. A kind appears when it is complete. Frames
    without labels are left out.

    Args:
        on_frame: called for each frame of the masks, and of each kind.
    """
    names = project.frames.names
    for left in project.folder.glob(".export*"):            # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=project.folder, prefix=".export") as temporary:
        for index, name in enumerate(names):
            labels = project.export_labels(index)
            if labels is not None:
                write_mask(Path(temporary, f"{name}.png"), labels, project.palette)
            on_frame()
        for kind in kinds:
            folder = project.folder / "export" / kind
            with atomic_folder(folder, _earlier_files(folder, set(names))) as partial:
                if kind == "overlay":
                    write_overlay(Video(project.frames.name, project.frames.reader), Path(temporary), project.palette,
                                  partial, on_frame)
                else:
                    _write(kind, project, Path(temporary), partial, on_frame)
    return project.folder / "export"


def _write(kind: str, project: Project, masks: Path, folder: Path, on_frame: Callable[[], None]) -> None:
    """Write the files of a kind."""
    names = project.frames.names
    frames = project.frames.reader.read(range(len(names)), workers=1) if kind == "cutouts" else [None] * len(names)
    for name, frame in zip(names, frames, strict=True):
        file = masks / f"{name}.png"
        if file.is_file() and kind == "masks":
            (folder / file.name).write_bytes(file.read_bytes())
        elif file.is_file():
            mask = read_mask(file)
            for label in project.names:
                path = folder / f"object_{label:03d}" / file.name
                path.parent.mkdir(exist_ok=True)
                alpha = np.where(mask == label, 255, 0).astype(np.uint8)
                Image.fromarray(alpha if frame is None else np.dstack([frame, alpha])).save(path, compress_level=1)
        on_frame()


def _earlier_files(folder: Path, names: set[str]) -> list[str]:
    """The files of an earlier export, by their paths in its folder."""
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if re.fullmatch(r"(object_\d{3}/)?[^/]+\.png|overlay\.mp4", path)
            and (Path(path).stem in names or path in ("overlay.mp4", "contact_sheet.png"))]
