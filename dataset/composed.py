"""Composed videos with exact masks: cut-out objects move over photographs."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.cutouts import Sources, choose_photograph, crop, load_moving_object, load_object, load_scene
from dataset.image_io import write_mask
from dataset.synthetic import write_frames
from util.files import atomic_file, atomic_folder
from util.opencv import cv2

# Where videos are among the sources: fractions of drawn videos, of scenes that are videos, of objects from videos.
DRAWN, SCENES, MOVING = 0.12, 0.3, 0.4


def _wave(rng: np.random.Generator, times: np.ndarray, strength: float) -> np.ndarray:
    """A smooth random curve around 0, (T,)."""
    return strength * sum(rng.uniform(-1, 1) / n * np.sin(n * 2 * times + rng.uniform(0, 6)) for n in (1, 2, 3))


class _Actor:
    """An object, as one layer (h, w, 4) or one per frame, and its motion through a scene."""

    def __init__(self, rng: np.random.Generator, layers: Sequence[np.ndarray], times: np.ndarray, height: int,
                 width: int):
        self.layers, self.times = layers, times
        side = max(layers[0].shape[:2])
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
        layer = self.layers[index % len(self.layers)]
        h, w = layer.shape[:2]
        bend = self.bends[0] * (1 - self.times[index]) + self.bends[1] * self.times[index]
        field = (cv2.resize(bend, (w, h), interpolation=cv2.INTER_CUBIC) * self.bending[index]).astype(np.float32)
        x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
        premultiplied = np.dstack([layer[..., :3] * layer[..., 3:] / 255, layer[..., 3]])
        bent = cv2.remap(premultiplied, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR,
                         borderMode=cv2.BORDER_CONSTANT)
        scale, angle = self.scales[index], self.angles[index]
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array([self.x[index], self.y[index]]) - linear @ [w / 2, h / 2]
        flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        return cv2.warpAffine(bent, np.hstack([linear, shift[:, None]]), (width, height), flags=flags)


def _smoke(rng: np.random.Generator, frames: int, height: int, width: int) -> list[np.ndarray]:
    """The densities (height, width, 1), 0 to 1, of a drifting cloud of smoke or spray."""
    cloud = sum(cv2.resize(rng.normal(size=(n, n)) / n ** 0.5, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
                for n in (4, 9, 20, 45))
    density = np.clip(0.3 + 0.5 * cloud, 0, 1)[..., None] * rng.uniform(0.3, 0.8)
    drift = rng.uniform(-0.45, 0.45, 2) * np.linspace(0, 1, frames)[:, None]
    return [density[top:top + height, left:left + width]
            for top, left in ((0.5 + drift) * [height, width]).astype(int)]


def compose_video(seed: Sequence[int], sources: Sources, frames: int, height: int, width: int,
                  objects: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames (height, width, 3) uint8 and labels (height, width) uint8; determined by seed and sources.

    The scene has 1 to 4 labelled objects, unless ``objects`` says how many, and up to two unlabelled ones. Some look
    alike. Objects and backgrounds are drawn if there are no sources of them. Where there are videos, some objects
    are cut out of consecutive frames, and some scenes are a video with its own objects.
    """
    rng = np.random.default_rng(list(seed))
    if sources.videos and rng.random() < DRAWN:
        sources = Sources()
    times = np.linspace(0, 1, frames) * rng.uniform(0.5, 1.2)
    labels = [*range(1, (objects or int(rng.integers(1, 5))) + 1), *[0] * int(rng.integers(0, 3))]
    photograph = choose_photograph(rng, sources)
    scene, videos = None, list(sources.videos)
    if videos and objects is None and rng.random() < SCENES:
        # Its objects are not added to it a second time.
        scene = load_scene(rng, videos.pop(rng.integers(len(videos))), frames, height, width)
        own = max(int(mask.max()) for _, mask in scene)
        if own:
            labels = [label + own if label else 0 for label in labels[-int(rng.integers(1, len(labels) + 1)):]]
    else:
        background = crop(rng, photograph, int(height * 1.6), int(width * 1.6))
    layers: list[Sequence[np.ndarray]] = []
    for _ in labels:
        if layers and rng.random() < 0.15:         # a twin
            layers.append(layers[-1])
            continue
        moving = []
        if videos and rng.random() < MOVING:
            moving = load_moving_object(rng, videos[rng.integers(len(videos))], frames)
        layers.append(moving or [load_object(rng, sources, photograph)])
    actors = [_Actor(rng, layer, times, height, width) for layer in layers]
    back_to_front = rng.permutation(len(actors))
    zoom, pan_x, pan_y = np.exp(_wave(rng, times, 0.1)), _wave(rng, times, 0.2 * width), _wave(rng, times, 0.2 * height)
    gain, offset = 1 + _wave(rng, times, rng.uniform(0, 0.2)), _wave(rng, times, rng.uniform(0, 15))
    blur = max(0.0, rng.normal(0, 0.7)) * np.abs(_wave(rng, times, 1))
    smoke, brightness = _smoke(rng, frames, height, width) if rng.random() < 0.25 else None, rng.uniform(150, 250)
    noise = rng.normal(0, rng.uniform(0, 5), (height, width, 3)).astype(np.float32)
    for index in range(frames):
        if scene:
            image, mask = scene[index]
        else:
            center = np.array([width * 0.8 - pan_x[index], height * 0.8 - pan_y[index]])
            shift = np.array([width, height]) / 2 - zoom[index] * center
            view = np.hstack([zoom[index] * np.eye(2), shift[:, None]])
            image = cv2.warpAffine(background, view, (width, height), borderMode=cv2.BORDER_REFLECT)
            mask = np.zeros((height, width), np.uint8)
        for number in back_to_front:
            layer = actors[number].render(index, height, width)
            alpha = layer[..., 3:] / 255
            image = image * (1 - alpha) + layer[..., :3]
            mask[alpha[..., 0] > 0.5] = labels[number]
        if smoke:
            image = image * (1 - smoke[index]) + brightness * smoke[index]
        image = image * gain[index] + offset[index]
        if blur[index] > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), blur[index])
        image = image + np.roll(noise, tuple(rng.integers(0, (height, width))), (0, 1))
        yield np.clip(image, 0, 255).astype(np.uint8), mask


def write_video(images: Path, masks: Path, seed: Sequence[int], sources: Sources, frames: int, height: int,
                every: int) -> None:
    """Write a video to a folder of frames and one of masks, see `write_frames`."""
    if masks.exists():
        return
    # The masks appear last: a video with masks is complete.
    with atomic_folder(masks) as mask_folder, atomic_folder(images) as image_folder:
        video = compose_video(seed, sources, frames, height, height * 16 // 9 // 2 * 2)
        write_frames(image_folder, mask_folder, video, every)


def write_image(path: Path, seed: Sequence[int], sources: Sources, height: int) -> None:
    """Write a static image with one object, and its mask (0 and 255) as a .png beside it."""
    if path.with_suffix(".png").exists():
        return
    for attempt in count():
        (image, labels), = compose_video((*seed, attempt), sources, 1, height, height * 4 // 3, objects=1)
        if labels.mean() > 0.01:                      # the object may be outside or occluded
            break
    with atomic_file(path) as partial:
        Image.fromarray(image).save(partial, "JPEG", quality=95)
    with atomic_file(path.with_suffix(".png")) as partial:
        write_mask(partial, labels * 255, palette=None)
