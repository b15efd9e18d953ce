"""Make small training data in the layouts of static, BL30K, DAVIS and YouTube, so that every stage can be tried.

  python -m scripts.make_dataset DIR [--pictures 200] [--videos 40] [--frames 24] [--height 240] [--seed 0]

Cut-outs move over photographs: smooth paths, rotation, scale, elastic deformation, occlusion by each other and by
distractors, a moving and zooming camera, changing light, blur and noise; the masks are exact. Sources are what the
machine has of the free Debian packages tuxpaint-stamps-default (cut-outs with alpha), plasma-workspace-wallpapers,
gnome-backgrounds, mate-backgrounds, lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 and ukui-wallpapers
(photographs), or the folders named with --cutouts and --photos. Without any it draws its own textures and shapes.

Train on it with --static_root DIR/static --bl_root DIR/BL30K --davis_root DIR/DAVIS --yv_root DIR/YouTube.
The same seed and sources make the same data; what is there already is not made again.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.image_io import write_mask
from dataset.synthetic import outline, texture
from util.cli import InputError, at_least, non_negative_int, positive_int, run
from util.files import atomic_folder, prepare_folder, write_atomic
from util.opencv import cv2
from util.palette import davis_palette
from util.progress import frames_bar

PHOTOS = ("/usr/share/wallpapers", "/usr/share/backgrounds")
CUTOUTS = ("/usr/share/tuxpaint/stamps",)
NOT_OBJECTS = {"symbols", "letters", "numbers", "clipart"}      # folders of stamps that show none
LARGEST = 512                                                   # pixels to which a cut-out is reduced
STATIC_FOLDERS = ("fss", "DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small")


@dataclass(frozen=True)
class Sources:
    """Picture files; either list may be empty."""
    photos: tuple[Path, ...]
    cutouts: tuple[Path, ...]


def find_sources(photos: Sequence[str], cutouts: Sequence[str]) -> Sources:
    """The pictures below the folders: photographs of some size, and cut-outs with transparency."""
    def usable(path: Path, alpha: bool, smallest: int) -> bool:
        try:
            with Image.open(path) as image:
                return min(image.size) >= smallest and image.mode in (("RGBA", "LA", "P") if alpha else ("RGB",))
        except OSError:
            return False

    def below(folders: Sequence[str], suffixes: set[str]) -> list[Path]:
        found = (path for folder in folders for path in Path(folder).rglob("*"))
        return sorted(path for path in found if path.suffix.lower() in suffixes and path.is_file())
    stamps = [path for path in below(cutouts, {".png"}) if not NOT_OBJECTS & set(path.parts)]
    pictures = below(photos, {".jpg", ".jpeg", ".png", ".webp"})
    return Sources(tuple(path for path in pictures if usable(path, False, 600)),
                   tuple(path for path in stamps if usable(path, True, 60)))


def photograph(rng: np.random.Generator, sources: Sources, height: int, width: int) -> np.ndarray:
    """A piece of a photograph, or a texture, (height, width, 3) float."""
    if not sources.photos or rng.random() < 0.1:
        return texture(rng, height, width, rng.uniform(40, 215, 3))
    path = sources.photos[rng.integers(len(sources.photos))]
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * width, 2 * height))
            picture = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read, perhaps cut off ({error}); take it out of --photos") from None
    scale = max(height / picture.shape[0], width / picture.shape[1]) * rng.uniform(1, 2)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
    top, left = (int(rng.integers(0, max(have - want, 0) + 1)) for have, want in zip(picture.shape, (height, width), strict=False))
    piece = picture[top:top + height, left:left + width]
    return cv2.resize(piece, (width, height)).astype(np.float32)


def limbs(rng: np.random.Generator, side: int) -> np.ndarray:
    """The alpha, (side, side) uint8, of a body with thin, bent limbs."""
    alpha = np.zeros((side, side), np.uint8)
    middle = np.full(2, side / 2)
    cv2.ellipse(alpha, (side // 2, side // 2), tuple(int(side * r) for r in rng.uniform(0.08, 0.22, 2)),
                float(rng.uniform(0, 180)), 0, 360, 255, -1)
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))):
        place, width = middle, side * rng.uniform(0.03, 0.1)
        for _ in range(2):
            angle = angle + rng.uniform(-0.7, 0.7)
            after = place + side * rng.uniform(0.1, 0.22) * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(alpha, tuple(map(int, place)), tuple(map(int, after)), 255, max(3, int(width)), cv2.LINE_AA)
            place, width = after, width * 0.7
    return alpha


def cutout(rng: np.random.Generator, sources: Sources, background: np.ndarray) -> np.ndarray:
    """An object with its alpha, (h, w, 4) float, 0..255.

    A stamp, at times with a photograph's texture; or a random shape cut from a photograph, often from the background's
    own, so that colours alone do not tell it.
    """
    if sources.cutouts and rng.random() < 0.6:
        path = sources.cutouts[rng.integers(len(sources.cutouts))]
        try:
            with Image.open(path) as image:
                image.thumbnail((LARGEST, LARGEST))
                sprite = np.asarray(image.convert("RGBA")).astype(np.float32)
        except OSError as error:
            raise InputError(f"{path}: cannot be read, perhaps cut off ({error}); take it out of --cutouts") from None
        rows, columns = (np.flatnonzero((sprite[..., 3] > 127).any(axis)) for axis in (1, 0))
        if len(rows) > 8 and len(columns) > 8:
            sprite = sprite[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
            if rng.random() < 0.3:
                skin = photograph(rng, sources, *sprite.shape[:2])
                sprite[..., :3] *= 0.4 + 0.8 * skin / max(float(skin.max()), 1.0)
            return sprite[:, ::-1].copy() if rng.random() < 0.5 else sprite
    side = 256
    if rng.random() < 0.5:
        alpha = limbs(rng, side)
    else:
        alpha = np.zeros((side, side), np.uint8)
        shape = outline(rng) * rng.uniform(0.5, 1, 2)
        cv2.fillPoly(alpha, [np.round(side / 2 + shape * side * 0.33).astype(np.int32)], 255, lineType=cv2.LINE_AA)
    if rng.random() < 0.5 and min(background.shape[:2]) > side:
        top, left = (int(rng.integers(0, have - side)) for have in background.shape[:2])
        tint = rng.uniform(0.5, 0.8) if rng.random() < 0.5 else rng.uniform(1.25, 1.6)      # or it could not be seen
        skin = background[top:top + side, left:left + side] * tint * rng.uniform(0.9, 1.1, 3)
    else:
        skin = photograph(rng, sources, side, side)
    return np.dstack([np.clip(skin, 0, 255), alpha]).astype(np.float32)


def wave(rng: np.random.Generator, times: np.ndarray, strength: float) -> np.ndarray:
    """A smooth random course around 0 over the times."""
    return strength * sum(rng.uniform(-1, 1) / n * np.sin(n * 2 * times + rng.uniform(0, 6)) for n in (1, 2, 3))


class Actor:
    """A cut-out, (h, w, 4), and its course through a scene."""

    def __init__(self, rng: np.random.Generator, sprite: np.ndarray, times: np.ndarray, height: int, width: int):
        self.sprite = sprite
        size = min(height, width) * rng.uniform(0.15, 0.85)
        self.scales = size / max(self.sprite.shape[:2]) * np.exp(wave(rng, times, 0.25))
        self.angles = rng.uniform(-0.4, 0.4) + wave(rng, times, rng.uniform(0, 0.8))
        self.x = width * (rng.uniform(0.15, 0.85) + wave(rng, times, 0.3))
        self.y = height * (rng.uniform(0.15, 0.85) + wave(rng, times, 0.2))
        self.bends = [rng.normal(size=(4, 4, 2)).astype(np.float32) for _ in range(2)]
        self.bending = wave(rng, times, max(self.sprite.shape[:2]) * rng.uniform(0, 0.06))
        self.blend = times

    def at(self, index: int, height: int, width: int) -> np.ndarray:
        """The picture with alpha, (height, width, 4) float, at a time."""
        sprite = self.sprite
        h, w = sprite.shape[:2]
        bend = self.bends[0] * (1 - self.blend[index]) + self.bends[1] * self.blend[index]
        field = cv2.resize(bend, (w, h), interpolation=cv2.INTER_CUBIC) * self.bending[index]
        x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
        premultiplied = np.dstack([sprite[..., :3] * sprite[..., 3:] / 255, sprite[..., 3]])
        bent = cv2.remap(premultiplied, x + field[..., 0].astype(np.float32), y + field[..., 1].astype(np.float32),
                         cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        scale, angle = self.scales[index], self.angles[index]
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array([self.x[index], self.y[index]]) - linear @ [w / 2, h / 2]
        flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        return cv2.warpAffine(bent, np.hstack([linear, shift[:, None]]), (width, height), flags=flags)


def make_video(seed: Sequence[int], sources: Sources, frames: int, height: int, width: int,
               objects: int | None = None, every: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A scene: frames (height, width, 3) uint8, labels (height, width) uint8, and the first object's soft mask.

    Args:
        objects: how many have a label; None: 1 to 4. There may be distractors besides, and several may look alike.
        every: only every so many frames is drawn.
    """
    rng = np.random.default_rng(list(seed))
    times = np.linspace(0, 1, frames) * rng.uniform(0.5, 1.2)
    count = objects or int(rng.integers(1, 5))
    labels = [*range(1, count + 1), *[0] * int(rng.integers(0, 3))]
    background = photograph(rng, sources, int(height * 1.6), int(width * 1.6))
    sprites: list[np.ndarray] = []
    for _ in labels:
        twin = sprites and rng.random() < 0.15
        sprites.append(sprites[-1] if twin else cutout(rng, sources, background))
    actors = [Actor(rng, sprite, times, height, width) for sprite in sprites]
    depth = rng.permutation(len(actors))
    zoom, pan_x, pan_y = np.exp(wave(rng, times, 0.1)), wave(rng, times, 0.2 * width), wave(rng, times, 0.2 * height)
    gain, shade = 1 + wave(rng, times, rng.uniform(0, 0.2)), wave(rng, times, rng.uniform(0, 15))
    blur = max(0.0, rng.normal(0, 0.7)) * np.abs(wave(rng, times, 1))
    noise = rng.normal(0, rng.uniform(0, 5), (height, width, 3)).astype(np.float32)
    shake = max(0.0, rng.normal(0, 2))                    # pixels of motion blur
    scene = []
    for index in range(0, frames, every):
        centre = np.array([width * 0.8 - pan_x[index], height * 0.8 - pan_y[index]])
        view = np.array([[zoom[index], 0], [0, zoom[index]]])
        matrix = np.hstack([view, (np.array([width, height]) / 2 - view @ centre)[:, None]])
        picture = cv2.warpAffine(background, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
        mask, soft = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
        for place in depth:
            layer = actors[place].at(index, height, width)
            alpha = layer[..., 3] / 255
            picture = picture * (1 - alpha[..., None]) + layer[..., :3]
            mask[alpha > 0.5] = labels[place]
            soft = soft * (1 - alpha) + (alpha if labels[place] == 1 else 0)
        picture = picture * gain[index] + shade[index]
        if blur[index] > 0.3:
            picture = cv2.GaussianBlur(picture, (0, 0), blur[index])
        if shake > 1:
            kernel, direction = np.zeros((9, 9), np.float32), rng.uniform(-1, 1, 2)
            reach = np.round(direction / np.abs(direction).max() * min(shake, 4)).astype(int)
            cv2.line(kernel, tuple(map(int, 4 - reach)), tuple(map(int, 4 + reach)), 1)
            picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
        picture = picture + np.roll(noise, tuple(rng.integers(0, (height, width))), (0, 1))
        scene.append((np.clip(picture, 0, 255).astype(np.uint8), mask, np.clip(soft * 255, 0, 255).astype(np.uint8)))
    return scene


def write_video(job: tuple[Path, Path, tuple[int, ...]], sources: Sources, frames: int, height: int, width: int,
                every: int) -> None:
    """Write every so many frames of a video to a folder of frames and one of masks."""
    images, masks, seed = job
    if masks.exists():
        return
    # Left in reverse order: the masks, by which a finished video is known, appear last.
    with atomic_folder(masks) as mask_folder, atomic_folder(images) as image_folder:
        scene = make_video(seed, sources, frames, height, width, every=every)
        for index, (picture, mask, _) in enumerate(scene):
            Image.fromarray(picture).save(image_folder / f"{index * every:05d}.jpg", quality=92)
            write_mask(mask_folder / f"{index * every:05d}.png", mask, davis_palette())


def write_image(job: tuple[Path, tuple[int, ...]], sources: Sources, height: int, width: int) -> None:
    """Write one picture and, beside it, its soft mask."""
    path, seed = job
    if path.exists() and path.with_suffix(".png").exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(20):
        picture, _, soft = make_video((*seed, attempt), sources, 1, height, width, objects=1)[0]
        if (soft > 127).mean() > 0.01:         # the object may lie outside, or behind a distractor
            break
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(picture).save(partial, format="JPEG", quality=92)
    partial.replace(path)
    write_mask(partial.with_suffix(".png"), soft, None)
    partial.with_suffix(".png").replace(path.with_suffix(".png"))


def jobs_of(root: Path, args: argparse.Namespace, sources: Sources) -> list[partial]:
    """All that is to be made, each a call."""
    def seed(name: str) -> tuple[int, ...]:
        return args.seed, zlib.crc32(name.encode())

    width = args.height * 16 // 9 // 2 * 2
    jobs = []
    for index in range(args.pictures):
        folder = STATIC_FOLDERS[index % len(STATIC_FOLDERS)]
        place = Path(folder, f"class{index % 5}") if folder == "fss" else Path(folder)
        name = place / f"{index:05d}.jpg"
        jobs.append(partial(write_image, (root / "static" / name, seed(str(name))), sources, args.height,
                            args.height * 4 // 3))
    davis, train = root / "DAVIS/2017/trainval", root / "YouTube/train_480p"
    for images, masks, prefix, every in ((root / "BL30K/JPEGImages", root / "BL30K/Annotations", "bl", 1),
                                         (davis / "JPEGImages/480p", davis / "Annotations/480p", "davis", 1),
                                         (train / "JPEGImages", train / "Annotations", "yv", 5)):
        for index in range(args.videos):
            name = f"{prefix}{index:04d}"
            jobs.append(partial(write_video, (images / name, masks / name, seed(name)), sources, args.frames * every,
                                args.height, width, every))
    return jobs


def start_worker() -> None:
    """Leave it to the process that gives out the work to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def check_settings(args: argparse.Namespace) -> None:
    """See that what is in the folder already was made in the same way; what is there is not made again."""
    settings = json.dumps({name: getattr(args, name) for name in ("seed", "frames", "height", "photos", "cutouts")})
    path = args.folder / "settings.json"
    if path.exists() and path.read_text() != settings:
        raise InputError(f"{args.folder}: holds data made otherwise ({path.read_text()}); use another folder, or the "
                         f"same flags to go on")
    write_atomic(path, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to write static, BL30K, DAVIS and YouTube")
    for name, default, smallest, what in (
            ("pictures", 200, 1, "static pictures in all"), ("videos", 40, 1, "videos of each kind"),
            ("frames", 24, 3, "annotated frames of a video"), ("height", 240, 32, "pixels of the frames")):
        parser.add_argument(f"--{name}", type=at_least(smallest), default=default, metavar="N",
                            help=f"{what} (default: %(default)s)")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="default: %(default)s")
    parser.add_argument("--photos", nargs="*", default=PHOTOS, metavar="DIR", help="default: the packages' folders")
    parser.add_argument("--cutouts", nargs="*", default=CUTOUTS, metavar="DIR", help="default: the package's folder")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), metavar="N",
                        help="processes (default: %(default)s, the machine's)")
    args = parser.parse_args()
    for place in (*args.photos, *args.cutouts):
        if place not in (*PHOTOS, *CUTOUTS) and not Path(place).is_dir():
            raise InputError(f"{place}: no such folder")
    prepare_folder(args.folder)
    check_settings(args)
    sources = find_sources(args.photos, args.cutouts)
    print(f"sources: {len(sources.photos)} photographs, {len(sources.cutouts)} cut-outs"
          + ("" if sources.photos and sources.cutouts else "; it draws its own in the place of the rest"))
    jobs = jobs_of(args.folder, args, sources)
    bar = frames_bar(len(jobs), "pictures and videos")
    with ProcessPoolExecutor(args.workers, initializer=start_worker) as pool:
        try:
            for done in as_completed([pool.submit(job) for job in jobs]):
                done.result()
                bar.increment()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)          # what is begun is finished, in seconds
            raise
    bar.finish()
    names = "".join(f"davis{index:04d}\n" for index in range(args.videos))
    lists = args.folder / "DAVIS/2017/trainval/ImageSets/2017"
    lists.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        write_atomic(lists / f"{split}.txt", names)
    print(f"done: {args.folder}")


if __name__ == "__main__":
    run(main)
