"""Composed videos with exact masks: cut-out objects move over photographs."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataset.cutouts import Sources, choose_photograph, crop, load_object
from dataset.image_io import write_mask
from util.files import atomic_file, atomic_folder
from util.opencv import cv2
from util.palette import davis_palette


class ComposedFrame(NamedTuple):
    """(H, W, 3) image, (H, W) labels and (H, W) soft mask of object 1, all uint8."""
    image: np.ndarray
    labels: np.ndarray
    alpha: np.ndarray


def _wave(rng: np.random.Generator, times: np.ndarray, strength: float) -> np.ndarray:
    """A smooth random curve around 0, (T,)."""
    return strength * sum(rng.uniform(-1, 1) / n * np.sin(n * 2 * times + rng.uniform(0, 6)) for n in (1, 2, 3))


class _Actor:
    """An object (h, w, 4) and its motion through a scene."""

    def __init__(self, rng: np.random.Generator, layer: np.ndarray, times: np.ndarray, height: int, width: int):
        self.layer, self.times = layer, times
        side = max(layer.shape[:2])
        self.scales = min(height, width) * rng.uniform(0.15, 0.85) / side * np.exp(_wave(rng, times, 0.25))
        if rng.random() < 0.35:                    # comes nearer or goes away
            growth = np.log(rng.uniform(2, 6)) * rng.choice([-1, 1])
            self.scales *= np.exp(growth * np.linspace(-0.5, 0.5, len(times)))
        self.angles = rng.uniform(-0.4, 0.4) + _wave(rng, times, rng.uniform(0, 0.8))
        self.x = width * (rng.uniform(0.15, 0.85) + _wave(rng, times, 0.3))
        self.y = height * (rng.uniform(0.15, 0.85) + _wave(rng, times, 0.2))
        self.bends = [rng.normal(size=(4, 4, 2)).astype(np.float32) for _ in range(2)]
        self.bending = _wave(rng, times, side * rng.uniform(0, 0.06))

    def render(self, index: int, height: int, width: int) -> np.ndarray:
        """The object at a time, premultiplied with its alpha, (height, width, 4) float."""
        h, w = self.layer.shape[:2]
        bend = self.bends[0] * (1 - self.times[index]) + self.bends[1] * self.times[index]
        field = cv2.resize(bend, (w, h), interpolation=cv2.INTER_CUBIC) * self.bending[index]
        x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
        premultiplied = np.dstack([self.layer[..., :3] * self.layer[..., 3:] / 255, self.layer[..., 3]])
        bent = cv2.remap(premultiplied, x + field[..., 0].astype(np.float32), y + field[..., 1].astype(np.float32),
                         cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        scale, angle = self.scales[index], self.angles[index]
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array([self.x[index], self.y[index]]) - linear @ [w / 2, h / 2]
        flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        return cv2.warpAffine(bent, np.hstack([linear, shift[:, None]]), (width, height), flags=flags)


class _Smoke:
    """A drifting cloud of smoke or spray."""

    def __init__(self, rng: np.random.Generator, frames: int, height: int, width: int):
        cloud = sum(cv2.resize(rng.normal(size=(n, n)) / n ** 0.5, (2 * width, 2 * height),
                               interpolation=cv2.INTER_CUBIC) for n in (4, 9, 20, 45))
        self.density = np.clip(0.3 + 0.5 * cloud, 0, 1)[..., None] * rng.uniform(0.3, 0.8)
        self.brightness = rng.uniform(150, 250)
        drift = rng.uniform(-0.45, 0.45, 2) * np.linspace(0, 1, frames)[:, None]
        self.corners = ((0.5 + drift) * [height, width]).astype(int)

    def cover(self, image: np.ndarray, index: int) -> np.ndarray:
        """The image (H, W, 3) behind the smoke."""
        (top, left), (height, width) = self.corners[index], image.shape[:2]
        density = self.density[top:top + height, left:left + width]
        return image * (1 - density) + self.brightness * density


def _motion_blur(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """The image blurred in a random direction; ``strength`` in pixels, at most 4."""
    kernel, direction = np.zeros((9, 9), np.float32), rng.uniform(-1, 1, 2)
    end = np.round(direction / np.abs(direction).max() * min(strength, 4)).astype(int)
    cv2.line(kernel, tuple(map(int, 4 - end)), tuple(map(int, 4 + end)), 1)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def compose_video(seed: Sequence[int], sources: Sources, frames: int, height: int, width: int,
                  objects: int | None = None, every: int = 1) -> Iterator[ComposedFrame]:
    """Every ``every``-th frame of a scene.

    Args:
        seed: the scene is the same for the same seed and sources.
        sources: of objects and backgrounds; what is missing is drawn.
        frames: of the scene.
        height, width: of the frames.
        objects: labelled objects; None: 1 to 4. Up to two unlabelled ones, and objects that look alike, come with them.
        every: see above.
    """
    rng = np.random.default_rng(list(seed))
    times = np.linspace(0, 1, frames) * rng.uniform(0.5, 1.2)
    count = objects or int(rng.integers(1, 5))
    labels = [*range(1, count + 1), *[0] * int(rng.integers(0, 3))]
    path = choose_photograph(rng, sources)
    background = crop(rng, path, int(height * 1.6), int(width * 1.6))
    layers: list[np.ndarray] = []
    for _ in labels:
        twin = layers and rng.random() < 0.15
        layers.append(layers[-1] if twin else load_object(rng, sources, path, background))
    actors = [_Actor(rng, layer, times, height, width) for layer in layers]
    back_to_front = rng.permutation(len(actors))
    zoom, pan_x, pan_y = np.exp(_wave(rng, times, 0.1)), _wave(rng, times, 0.2 * width), _wave(rng, times, 0.2 * height)
    gain, offset = 1 + _wave(rng, times, rng.uniform(0, 0.2)), _wave(rng, times, rng.uniform(0, 15))
    blur = max(0.0, rng.normal(0, 0.7)) * np.abs(_wave(rng, times, 1))
    smoke = _Smoke(rng, frames, height, width) if rng.random() < 0.25 else None
    noise = rng.normal(0, rng.uniform(0, 5), (height, width, 3)).astype(np.float32)
    shake = max(0.0, rng.normal(0, 2))
    for index in range(0, frames, every):
        center = np.array([width * 0.8 - pan_x[index], height * 0.8 - pan_y[index]])
        shift = np.array([width, height]) / 2 - zoom[index] * center
        view = np.hstack([zoom[index] * np.eye(2), shift[:, None]])
        image = cv2.warpAffine(background, view, (width, height), borderMode=cv2.BORDER_REFLECT)
        mask, soft = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
        for number in back_to_front:
            layer = actors[number].render(index, height, width)
            alpha = layer[..., 3] / 255
            image = image * (1 - alpha[..., None]) + layer[..., :3]
            mask[alpha > 0.5] = labels[number]
            soft = soft * (1 - alpha) + (alpha if labels[number] == 1 else 0)
        if smoke:
            image = smoke.cover(image, index)
        image = image * gain[index] + offset[index]
        if blur[index] > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), blur[index])
        if shake > 1:
            image = _motion_blur(rng, image, shake)
        image = image + np.roll(noise, tuple(rng.integers(0, (height, width))), (0, 1))
        yield ComposedFrame(*(np.clip(part, 0, 255).astype(np.uint8) for part in (image, mask, soft * 255)))


def write_video(images: Path, masks: Path, seed: tuple[int, ...], sources: Sources, frames: int, height: int,
                every: int) -> None:
    """Write every ``every``-th frame of a video to a folder of frames and one of masks."""
    if masks.exists():
        return
    # The masks appear last: a video with masks is complete.
    with atomic_folder(masks) as mask_folder, atomic_folder(images) as image_folder:
        for index, frame in enumerate(compose_video(seed, sources, frames * every, height, height * 16 // 9 // 2 * 2,
                                                    every=every)):
            Image.fromarray(frame.image).save(image_folder / f"{index * every:05d}.jpg", quality=92)
            write_mask(mask_folder / f"{index * every:05d}.png", frame.labels, davis_palette())


def write_image(path: Path, seed: tuple[int, ...], sources: Sources, height: int) -> None:
    """Write a static image and its soft mask."""
    if path.with_suffix(".png").exists():
        return
    for attempt in range(20):
        frame, = compose_video((*seed, attempt), sources, 1, height, height * 4 // 3, objects=1)
        if (frame.alpha > 127).mean() > 0.01:         # the object may be outside or occluded
            break
    for target, content, form in ((path, frame.image, "JPEG"), (path.with_suffix(".png"), frame.alpha, "PNG")):
        with atomic_file(target) as temporary:
            Image.fromarray(content).save(temporary, form, quality=92)
