"""Drawn clips with exact masks: textured objects that move, turn and grow over a panning background."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.image_io import write_mask
from util.files import atomic_folder
from util.opencv import cv2
from util.palette import davis_palette


def texture(rng: np.random.Generator, height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """Noise at several scales around a colour, (height, width, 3) float in 0..255."""
    image = np.zeros((height, width, 3), np.float32)
    for resolution in (4, 12, 40):
        noise = rng.normal(size=(resolution, resolution, 3)).astype(np.float32) * 28
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + colour, 0, 255)


def outline(rng: np.random.Generator) -> np.ndarray:
    """A smooth closed curve around the origin, (points, 2), with a radius of about 1."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = 1 + sum(rng.uniform(-0.18, 0.18) * np.cos(n * angles + rng.uniform(0, 6)) for n in (2, 3, 5))
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)


def draw_clip(frames: int, height: int, width: int, objects: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames (height, width, 3) uint8 and masks (height, width) uint8; object i is drawn over those before it."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(40, 215, (objects + 1, 3))
    background = texture(rng, height * 2, width * 2, colours[0])
    size = min(height, width)
    shapes = [(outline(rng), texture(rng, size, size, colour), size * rng.uniform(0.12, 0.2),
               rng.uniform(0.2, 0.8, 4), rng.uniform(-1, 1)) for colour in colours[1:]]
    for t in np.linspace(0, 1, frames):
        dy, dx = int(t * height * 0.2), int(t * width * 0.3)
        frame, mask = background[dy:dy + height, dx:dx + width].copy(), np.zeros((height, width), np.uint8)
        for label, (points, surface, radius, (x0, y0, x1, y1), turn) in enumerate(shapes, 1):
            scale, angle = radius * (1 + 0.3 * np.sin(4 * t + label)), 2 * turn * t
            x, y = width * (x0 + (x1 - x0) * t), height * (y0 + (y1 - y0) * t)
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
            inside = np.zeros_like(mask)
            cv2.fillPoly(inside, [np.round(points @ rotation.T + [x, y]).astype(np.int32)], 1)
            to_center = np.array([[1, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1]])
            matrix = np.hstack([rotation / (size / 4), [[x], [y]]]) @ to_center
            warped = cv2.warpAffine(surface, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
            frame[inside > 0], mask[inside > 0] = warped[inside > 0], label
        yield frame.astype(np.uint8), mask


def write_frames(images: Path, masks: Path, clip: Iterable[tuple[np.ndarray, np.ndarray]], every: int = 1) -> None:
    """Write frames and masks to existing folders, numbered 0, ``every``, 2 ``every``, ..."""
    for index, (frame, mask) in enumerate(clip):
        Image.fromarray(frame).save(images / f"{index * every:05d}.jpg", quality=95)
        write_mask(masks / f"{index * every:05d}.png", mask, davis_palette())


def write_clip(folder: Path, **options: int) -> None:
    """Write the clip of `draw_clip` to ``folder/frames`` and ``folder/masks``."""
    with atomic_folder(folder) as partial:
        for name in ("frames", "masks"):
            (partial / name).mkdir()
        write_frames(partial / "frames", partial / "masks", draw_clip(**options))
