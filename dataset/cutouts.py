"""Objects and backgrounds of composed videos: cut-outs of annotated photographs and videos, stamps, drawn shapes."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.image_io import fit_mask, read_frame, read_image, read_mask
from dataset.synthetic import outline, texture
from dataset.video import image_files
from util.cli import InputError
from util.files import atomic_folder
from util.opencv import cv2

CUTOUT_SIDE = 512           # pixels; larger cut-outs are reduced
MIN_OBJECT_SIDE, MIN_OBJECT_AREA = 30, 2500


VideoFiles = Sequence[tuple[Path, Path]]            # of the frames and their masks


class Sources(NamedTuple):
    """What videos are composed of; any may be empty."""
    photographs: Sequence[Path] = ()
    cutouts: Sequence[Path] = ()                                # images with alpha
    videos: Sequence[VideoFiles] = ()


def find_images(folders: Sequence[Path], suffixes: set[str]) -> list[Path]:
    """The image files at any depth of the folders."""
    return sorted(path for folder in folders for path in folder.rglob("[!.]*")
                  if path.suffix.lower() in suffixes and path.is_file())


def cut_out_objects(folder: Path, target: Path, parts: bool) -> None:
    """Cut the objects out of annotated photographs, as PNGs with alpha named ``<photograph>__<number>.png``.

    Args:
        folder: with ``images``, and masks of the same names in ``masks``.
        target: new folder for the cut-outs.
        parts: the values of a mask are parts of one object, which is cut out whole and as up to two of its parts.
            Otherwise each value is an object.
    """
    rng = np.random.default_rng(0)
    images = {path.stem: path for path in image_files(folder / "images")}
    with atomic_folder(target) as partial:
        for mask_path in image_files(folder / "masks", {".png"}):
            if mask_path.stem not in images:
                raise InputError(f"{mask_path}: {folder / 'images'} has no image of this name")
            image = read_frame(images[mask_path.stem])
            labels = fit_mask(mask_path, read_mask(mask_path), *image.shape[:2])
            values, areas = np.unique(labels[labels > 0], return_counts=True)
            values = values[areas >= MIN_OBJECT_AREA]
            regions = [labels == value for value in (rng.permutation(values)[:2] if parts else values)]
            for number, region in enumerate([labels > 0, *regions] if parts else regions):
                cut_out = _cut_out(image, region)
                if cut_out is not None:
                    Image.fromarray(cut_out).save(partial / f"{mask_path.stem}__{number}.png", compress_level=1)


def _cut_out(image: np.ndarray, region: np.ndarray) -> np.ndarray | None:
    """The region of an image as (h, w, 4) with a smooth edge; None if it is small or in more than four pieces."""
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    kept = [piece for piece in range(1, count) if statistics[piece, cv2.CC_STAT_AREA] > 0.03 * region.sum()]
    region = np.isin(pieces, kept).astype(np.uint8) * 255
    x, y, width, height = cv2.boundingRect(region)
    if np.count_nonzero(region) < MIN_OBJECT_AREA or min(width, height) < MIN_OBJECT_SIDE or len(kept) > 4:
        return None
    return np.dstack([image, _soft_edge(region)])[y:y + height, x:x + width]


def _soft_edge(region: np.ndarray) -> np.ndarray:
    """The alpha of a region (h, w) of 0 and 255, without the background's colours at its edge."""
    return cv2.GaussianBlur(cv2.erode(region, np.ones((3, 3), np.uint8)), (0, 0), 0.8)


def choose_photograph(rng: np.random.Generator, sources: Sources) -> Path | None:
    """A photograph; None, for a texture, if there is none."""
    return sources.photographs[rng.integers(len(sources.photographs))] if sources.photographs else None


def crop(rng: np.random.Generator, path: Path | None, height: int, width: int) -> np.ndarray:
    """A random crop of a photograph, or a texture, (height, width, 3) float."""
    if path is None:
        return texture(rng, height, width, rng.uniform(40, 215, 3))
    photograph = read_frame(path)
    reduction = min(photograph.shape[0] / height, photograph.shape[1] / width) / rng.uniform(1, 2)
    rows, columns = max(int(height * reduction), 1), max(int(width * reduction), 1)
    top, left = rng.integers(0, np.array(photograph.shape[:2]) - [rows, columns] + 1)
    return cv2.resize(photograph[top:top + rows, left:left + columns], (width, height),
                      interpolation=cv2.INTER_AREA if reduction > 1 else cv2.INTER_LINEAR).astype(np.float32)


def _draw_limbs(rng: np.random.Generator, alpha: np.ndarray) -> None:
    """Draw a body with thin, bent limbs."""
    side = len(alpha)
    cv2.ellipse(alpha, (side // 2, side // 2), tuple(int(side * r) for r in rng.uniform(0.08, 0.22, 2)),
                float(rng.uniform(0, 180)), 0, 360, 255, -1)
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))):
        start, width = np.full(2, side / 2), side * rng.uniform(0.03, 0.1)
        for _ in range(2):
            angle = angle + rng.uniform(-0.7, 0.7)
            end = start + side * rng.uniform(0.1, 0.22) * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(alpha, tuple(map(int, start)), tuple(map(int, end)), 255, max(3, int(width)), cv2.LINE_AA)
            start, width = end, width * 0.7


def _drawn_object(rng: np.random.Generator, sources: Sources) -> np.ndarray:
    """A random shape with the surface of a photograph, (256, 256, 4) float."""
    side = 256
    alpha = np.zeros((side, side), np.uint8)
    if rng.random() < 0.5:
        _draw_limbs(rng, alpha)
    else:
        points = side / 2 + outline(rng) * rng.uniform(0.5, 1, 2) * side * 0.33
        cv2.fillPoly(alpha, [np.round(points).astype(np.int32)], 255, lineType=cv2.LINE_AA)
    return np.dstack([crop(rng, choose_photograph(rng, sources), side, side), alpha]).astype(np.float32)


def load_object(rng: np.random.Generator, sources: Sources, photograph: Path | None) -> np.ndarray:
    """A drawn object, or a cut-out that is not of the background's photograph: (h, w, 4) float, 0 to 255."""
    cutouts = [path for path in sources.cutouts if not (photograph and path.name.startswith(f"{photograph.stem}__"))]
    if not cutouts or rng.random() < 0.4:
        return _drawn_object(rng, sources)
    image = read_image(cutouts[rng.integers(len(cutouts))])
    image.thumbnail((CUTOUT_SIDE, CUTOUT_SIDE))
    layer = np.asarray(image.convert("RGBA")).astype(np.float32)
    x, y, width, height = cv2.boundingRect((layer[..., 3] > 127).astype(np.uint8))
    if min(width, height) <= 8:
        return _drawn_object(rng, sources)
    layer = layer[y:y + height, x:x + width]
    return layer[:, ::-1].copy() if rng.random() < 0.5 else layer


def _read_clip(rng: np.random.Generator, video: VideoFiles, frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames (h, w, 3) and labels (h, w) of a part of a video, forward or backward, mirrored or not."""
    step = rng.integers(1, max(1, min(3, (len(video) - 1) // max(frames - 1, 1))) + 1)
    first = rng.integers(max(len(video) - step * (frames - 1), 1))
    last = len(video) - 1                                       # a short video is continued backward
    indices = last - np.abs((first + step * np.arange(frames)) % (2 * last) - last)
    mirror = rng.choice([-1, 1])
    clip = []
    for image_path, mask_path in (video[index] for index in indices[::rng.choice([-1, 1])]):
        image = read_frame(image_path)
        if clip and image.shape != clip[0][0].shape:
            raise InputError(f"{image_path}: another size than other frames of this video")
        mask = fit_mask(mask_path, read_mask(mask_path), *image.shape[:2])
        clip.append((image[:, ::mirror], mask[:, ::mirror]))
    return clip


def load_moving_object(rng: np.random.Generator, video: VideoFiles, frames: int) -> list[np.ndarray]:
    """The objects of a video cut out of consecutive frames, as one object: ``frames`` layers (h, w, 4), centred on it.

    There are none if it is small.
    """
    clip = _read_clip(rng, video, frames)
    regions = [(labels > 0).astype(np.uint8) * 255 for _, labels in clip]
    boxes = [cv2.boundingRect(region) for region in regions]
    width, height = np.max(boxes, 0)[2:] + 4
    if min(width, height) < MIN_OBJECT_SIDE or max(map(np.count_nonzero, regions)) < MIN_OBJECT_AREA:
        return []
    layers = []
    for (image, _), region, (x, y, w, h) in zip(clip, regions, boxes, strict=True):
        layer = np.dstack([image, _soft_edge(region)]).astype(np.float32)
        shift = np.float32([[1, 0, (width - w) // 2 - x], [0, 1, (height - h) // 2 - y]])
        layers.append(cv2.warpAffine(layer, shift, (int(width), int(height)), flags=cv2.INTER_NEAREST))
    return layers


def load_scene(rng: np.random.Generator, video: VideoFiles, frames: int, height: int,
               width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A random crop of consecutive frames of a video: images (height, width, 3) float and labels 0, 1, 2, ..."""
    clip = _read_clip(rng, video, frames)
    size = np.array(clip[0][0].shape[:2])
    shape = np.array([height, width]) * (size / [height, width]).min() * rng.uniform(0.7, 1)
    rows, columns = np.maximum(shape.astype(int), 1)
    top, left = rng.integers(0, size - [rows, columns] + 1)
    values = np.unique(np.stack([labels for _, labels in clip]))
    numbers = np.zeros(256, np.uint8)
    numbers[values[values > 0]] = np.arange(1, np.count_nonzero(values) + 1)
    window = np.s_[top:top + rows, left:left + columns]
    return [(cv2.resize(image[window].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR),
             cv2.resize(numbers[labels[window]], (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
            for image, labels in clip]
