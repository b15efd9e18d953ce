"""Objects and backgrounds of composed videos: cut-outs of annotated photographs, stamps, and drawn shapes."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.image_io import IMAGE_SUFFIXES, fit_mask, read_frame, read_mask
from dataset.synthetic import outline, texture
from dataset.video import image_files
from util.cli import InputError
from util.files import atomic_folder
from util.opencv import cv2

NOT_OBJECTS = {"symbols", "letters", "numbers", "clipart"}      # folders of tuxpaint stamps
CUTOUT_SIDE = 512                                               # pixels; larger cut-outs are reduced
MIN_PHOTOGRAPH_SIDE, MIN_CUTOUT_SIDE, MIN_OBJECT_AREA = 240, 30, 2500


@dataclass(frozen=True)
class Sources:
    """Image files; either tuple may be empty."""
    photographs: tuple[Path, ...]
    cutouts: tuple[Path, ...]


def find_sources(photographs: Sequence[Path], cutouts: Sequence[Path]) -> Sources:
    """The images below the folders that are large enough: photographs, and cut-outs with transparency."""
    def find(folders: Sequence[Path], suffixes: set[str], modes: set[str], min_side: int) -> tuple[Path, ...]:
        def usable(path: Path) -> bool:
            try:
                with Image.open(path) as image:
                    return min(image.size) >= min_side and image.mode in modes
            except (OSError, Image.DecompressionBombError):
                return False
        files = sorted(path for folder in folders for path in folder.rglob("*")
                       if path.suffix.lower() in suffixes and not NOT_OBJECTS & set(path.parts))
        return tuple(filter(usable, files))
    return Sources(find(photographs, {".jpg", ".jpeg", ".png", ".webp"}, {"RGB"}, MIN_PHOTOGRAPH_SIDE),
                   find(cutouts, {".png"}, {"RGBA", "LA", "P"}, MIN_CUTOUT_SIDE))


def cut_out_objects(folder: Path, target: Path, parts: bool) -> None:
    """Cut the objects out of annotated photographs, as PNGs with alpha named ``<photograph>__<number>.png``.

    Args:
        folder: with ``images``, and masks of the same names in ``masks``.
        target: new folder for the cut-outs.
        parts: the values of a mask are parts of one object, which is cut out whole and as up to two of its parts.
            Otherwise each value is an object, and the five largest are cut out.

    Raises:
        InputError: a file is missing or unusable.
    """
    rng = np.random.default_rng(0)
    images = {path.stem: path for path in image_files(folder / "images", IMAGE_SUFFIXES)}
    with atomic_folder(target) as partial:
        for mask_path in image_files(folder / "masks", {".png"}):
            if mask_path.stem not in images:
                raise InputError(f"{mask_path}: {folder / 'images'} has no image of this name")
            image = read_frame(images[mask_path.stem])
            labels = fit_mask(mask_path, read_mask(mask_path), *image.shape[:2])
            values, areas = np.unique(labels[labels > 0], return_counts=True)
            largest = values[np.argsort(-areas)][:np.count_nonzero(areas >= MIN_OBJECT_AREA)]
            regions = [labels == value for value in (rng.permutation(largest)[:2] if parts else largest[:5])]
            for number, region in enumerate([labels > 0, *regions] if parts else regions):
                cut_out = _cut_out(image, region)
                if cut_out is not None:
                    Image.fromarray(cut_out).save(partial / f"{mask_path.stem}__{number}.png", compress_level=1)


def _cut_out(image: np.ndarray, region: np.ndarray) -> np.ndarray | None:
    """The region of an image as (h, w, 4) with a smooth edge; None if it is small or in more than four pieces."""
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    kept = [piece for piece in range(1, count) if statistics[piece, cv2.CC_STAT_AREA] > 0.03 * region.sum()]
    region = np.isin(pieces, kept)
    if region.sum() < MIN_OBJECT_AREA or len(kept) > 4:
        return None
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    if min(len(rows), len(columns)) < MIN_CUTOUT_SIDE or max(len(rows), len(columns)) < 2 * MIN_CUTOUT_SIDE:
        return None
    inner = cv2.erode(region.astype(np.uint8) * 255, np.ones((3, 3), np.uint8))      # without the background's colours
    alpha = cv2.GaussianBlur(inner, (0, 0), 0.8)
    return np.dstack([image, alpha])[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def choose_photograph(rng: np.random.Generator, sources: Sources) -> Path | None:
    """A photograph; None, for a texture, if there is none and in one of ten draws."""
    if not sources.photographs or rng.random() < 0.1:
        return None
    return sources.photographs[rng.integers(len(sources.photographs))]


def crop(rng: np.random.Generator, path: Path | None, height: int, width: int) -> np.ndarray:
    """A random crop of a photograph, or a texture, (height, width, 3) float.

    Raises:
        InputError: the photograph cannot be read.
    """
    if path is None:
        return texture(rng, height, width, rng.uniform(40, 215, 3))
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * width, 2 * height))
            photograph = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path}: damaged ({error}); remove it from --photos") from None
    scale = max(height / photograph.shape[0], width / photograph.shape[1]) * rng.uniform(1, 2)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=method)
    top, left = (int(rng.integers(0, max(have - want, 0) + 1))
                 for have, want in zip(photograph.shape[:2], (height, width), strict=True))
    return cv2.resize(photograph[top:top + height, left:left + width], (width, height)).astype(np.float32)


def _limbs(rng: np.random.Generator, side: int) -> np.ndarray:
    """The alpha, (side, side) uint8, of a body with thin, bent limbs."""
    alpha = np.zeros((side, side), np.uint8)
    center = np.full(2, side / 2)
    cv2.ellipse(alpha, (side // 2, side // 2), tuple(int(side * r) for r in rng.uniform(0.08, 0.22, 2)),
                float(rng.uniform(0, 180)), 0, 360, 255, -1)
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))):
        start, width = center, side * rng.uniform(0.03, 0.1)
        for _ in range(2):
            angle = angle + rng.uniform(-0.7, 0.7)
            end = start + side * rng.uniform(0.1, 0.22) * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(alpha, tuple(map(int, start)), tuple(map(int, end)), 255, max(3, int(width)), cv2.LINE_AA)
            start, width = end, width * 0.7
    return alpha


def _drawn_object(rng: np.random.Generator, sources: Sources, background: np.ndarray) -> np.ndarray:
    """A random shape with the surface of a photograph, half of the time the background's, (h, w, 4) float."""
    side = 256
    if rng.random() < 0.5:
        alpha = _limbs(rng, side)
    else:
        alpha = np.zeros((side, side), np.uint8)
        shape = outline(rng) * rng.uniform(0.5, 1, 2)
        cv2.fillPoly(alpha, [np.round(side / 2 + shape * side * 0.33).astype(np.int32)], 255, lineType=cv2.LINE_AA)
    if rng.random() < 0.5 and min(background.shape[:2]) > side:
        top, left = (int(rng.integers(0, have - side)) for have in background.shape[:2])
        tint = rng.uniform(0.5, 0.8) if rng.random() < 0.5 else rng.uniform(1.25, 1.6)      # else it would be invisible
        surface = background[top:top + side, left:left + side] * tint * rng.uniform(0.9, 1.1, 3)
    else:
        surface = crop(rng, choose_photograph(rng, sources), side, side)
    return np.dstack([np.clip(surface, 0, 255), alpha]).astype(np.float32)


def load_object(rng: np.random.Generator, sources: Sources, path: Path | None, background: np.ndarray) -> np.ndarray:
    """A cut-out, at times with another texture, or a drawn object: (h, w, 4) float, 0..255.

    Args:
        path: the background's photograph, whose own objects are not used.
        background: (height, width, 3).
    """
    own = path.stem if path else ""
    cutouts = [cutout for cutout in sources.cutouts if cutout.stem.rpartition("__")[0] != own]
    if not cutouts or rng.random() < 0.4:
        return _drawn_object(rng, sources, background)
    cutout = cutouts[rng.integers(len(cutouts))]
    try:
        with Image.open(cutout) as image:
            image.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE))
            layer = np.asarray(image.convert("RGBA")).astype(np.float32)
    except OSError as error:
        raise InputError(f"{cutout}: damaged ({error}); remove it from --cutouts") from None
    rows, columns = (np.flatnonzero((layer[..., 3] > 127).any(axis)) for axis in (1, 0))
    if min(len(rows), len(columns)) <= 8:
        return _drawn_object(rng, sources, background)
    layer = layer[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    if rng.random() < 0.3:
        surface = crop(rng, choose_photograph(rng, sources), *layer.shape[:2])
        layer[..., :3] *= 0.4 + 0.8 * surface / max(float(surface.max()), 1.0)
    return layer[:, ::-1].copy() if rng.random() < 0.5 else layer
