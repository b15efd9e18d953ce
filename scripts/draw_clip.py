"""Draw a clip with true masks: textured objects that move, turn and grow over a textured, panning background.

  python -m scripts.draw_clip DIR [--frames 20] [--width 320] [--height 240] [--objects 3] [--seed 0]

Writes DIR/frames/%05d.jpg and DIR/masks/%05d.png (palette masks, exact). The same seed draws the same clip.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.image_io import MAX_OBJECTS, write_mask
from util.cli import InputError, non_negative_int, positive_int, run
from util.files import prepare_folder
from util.opencv import cv2
from util.palette import davis_palette


def texture(rng: np.random.Generator, height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """Noise of several scales around a colour, (height, width, 3) float in 0..255."""
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (4, 12, 40):
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32) * 28
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + colour, 0, 255)


def outline(rng: np.random.Generator) -> np.ndarray:
    """A smooth closed shape around the origin, (points, 2), about 1 in radius."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = 1 + sum(rng.uniform(-0.18, 0.18) * np.cos(n * angles + rng.uniform(0, 6)) for n in (2, 3, 5))
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)


def draw_clip(frames: int, height: int, width: int, objects: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames (height, width, 3) uint8 and masks (height, width) uint8, object i drawn over those before it."""
    rng = np.random.default_rng(seed)
    hues = rng.uniform(40, 215, (objects + 1, 3))
    background = texture(rng, height * 2, width * 2, hues[0])
    size = min(height, width)
    shapes = [(outline(rng), texture(rng, size, size, hue), size * rng.uniform(0.12, 0.2), rng.uniform(0.2, 0.8, 4),
               rng.uniform(-1, 1)) for hue in hues[1:]]
    for t in np.linspace(0, 1, frames):
        dy, dx = int(t * height * 0.2), int(t * width * 0.3)
        frame, mask = background[dy:dy + height, dx:dx + width].copy(), np.zeros((height, width), np.uint8)
        for label, (points, skin, radius, (x0, y0, x1, y1), turn) in enumerate(shapes, 1):
            scale, angle = radius * (1 + 0.3 * np.sin(4 * t + label)), 2 * turn * t
            x, y = width * (x0 + (x1 - x0) * t), height * (y0 + (y1 - y0) * t)
            turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
            inside = np.zeros_like(mask)
            cv2.fillPoly(inside, [np.round(points @ turned.T + [x, y]).astype(np.int32)], 1)
            centred = np.array([[1, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1]])
            zoom = np.hstack([turned / (size / 4), [[x], [y]]]) @ centred
            warped = cv2.warpAffine(skin, zoom, (width, height), borderMode=cv2.BORDER_REFLECT)
            frame[inside > 0], mask[inside > 0] = warped[inside > 0], label
        yield frame.astype(np.uint8), mask


def write_clip(folder: Path, **options: int) -> None:
    """Write the clip of `draw_clip` to ``folder/frames`` and ``folder/masks``."""
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, (frame, mask) in enumerate(draw_clip(**options)):
        Image.fromarray(frame).save(folder / "frames" / f"{index:05d}.jpg", quality=95)
        write_mask(folder / "masks" / f"{index:05d}.png", mask, davis_palette())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to write")
    for name, default in (("frames", 20), ("width", 320), ("height", 240), ("objects", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=non_negative_int if name == "seed" else positive_int, default=default, metavar="N",
                            help="default: %(default)s")
    args = vars(parser.parse_args())
    folder = args.pop("folder")
    if args["objects"] > MAX_OBJECTS:
        raise InputError(f"--objects {args['objects']}: a mask has at most {MAX_OBJECTS}")
    for name in ("frames", "masks"):
        if (folder / name).exists():
            raise InputError(f"{folder / name}: is there already; name another folder")
    prepare_folder(folder)
    write_clip(folder, **args)


if __name__ == "__main__":
    run(main)
