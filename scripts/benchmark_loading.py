"""Measure how fast training samples are made, and how fast static ones were made the original way.

  python -m scripts.benchmark_loading DIR [--samples 40]

DIR is what scripts/make_dataset.py made. Prints samples/s of one worker (one thread) for each data set at the full 384
pixels. The original way for a static sample: PIL, every affine of the sequence done anew for each frame, picture and
mask one after the other, and for a thin-plate warp a spline solved and evaluated at every pixel.
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from tps import ThinPlateSpline

from dataset.stages import bl30k_stage, static_stage, video_stage
from dataset.transforms import FILL, SIZE
from util.cli import positive_int, run
from util.opencv import cv2


def original_way(path: Path, mask_path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A static sample as it was made before: everything three times, and twice for picture and mask."""
    seed, frames = int(torch.randint(2 ** 31, ())), []
    image, mask = Image.open(path).convert("RGB"), Image.open(mask_path).convert("L")

    def both(seed: int, transform: Callable[[int], v2.Transform], *pair: Image.Image) -> list[Image.Image]:
        results = []
        for picture, fill in zip(pair, (FILL, 0), strict=True):
            torch.manual_seed(seed)
            results.append(transform(fill)(picture))
        return results

    for _ in range(3):
        pair = both(seed, lambda fill: v2.Compose([v2.RandomAffine(0, scale=(0.8, 1.5), fill=fill),
                                                   v2.RandomHorizontalFlip()]), image, mask)
        torch.manual_seed(seed)
        pair[0] = v2.Compose([v2.ColorJitter(0.1, 0.05, 0.05, 0.05), v2.RandomGrayscale(0.05)])(pair[0])
        own = int(torch.randint(2 ** 31, ()))
        pair = both(own, lambda fill: v2.Compose([
            v2.RandomAffine(20, scale=(0.9, 1.1), shear=10, interpolation=InterpolationMode.BICUBIC, fill=fill),
            v2.Resize(SIZE, InterpolationMode.BICUBIC), v2.RandomCrop(SIZE)]), *pair)
        pair[0] = v2.ColorJitter(0.1, 0.05, 0.05)(pair[0])
        arrays = [np.asarray(part) for part in pair]
        if torch.rand(()) < 0.33:
            points = np.stack([np.random.permutation(SIZE)[:12], np.random.permutation(SIZE)[:12]], 1) / SIZE
            spline = ThinPlateSpline(alpha=0.0).fit(points, points + 0.02 * np.random.randn(12, 2))
            grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij"), -1).reshape(-1, 2) / SIZE
            where = (spline.transform(grid).reshape(SIZE, SIZE, 2) * SIZE).astype(np.float32)
            arrays = [cv2.remap(array, where[..., 1], where[..., 0], cv2.INTER_LINEAR) for array in arrays]
        frames.append((torch.from_numpy(arrays[0].copy()).permute(2, 0, 1).float() / 255,
                       torch.from_numpy(arrays[1].copy()).float() / 255))
    return frames


def positive_float(make: Callable[[int], object], samples: int) -> float:
    """Samples/s after a warm-up, without the fastest and slowest tenth."""
    make(0)
    times = []
    for index in range(samples):
        start = time.perf_counter()
        make(index)
        times.append(time.perf_counter() - start)
    return 1 / statistics.mean(sorted(times)[samples // 10:samples - samples // 10])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="made by scripts/make_dataset.py")
    parser.add_argument("--samples", type=positive_int, default=40, metavar="N", help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    root = args.folder
    static = static_stage(root / "static", seed=0)
    pairs = [part.pairs[position] for part, position in static.items]
    ours = positive_float(lambda index: static[(0, index % len(static))], args.samples)
    theirs = positive_float(lambda index: original_way(*pairs[index % len(pairs)]), args.samples)
    again = positive_float(lambda index: static[(1, index % len(static))], args.samples)
    print(f"static, ours          {ours:6.1f} and {again:6.1f} samples/s")
    print(f"static, original way  {theirs:6.1f} samples/s: ours is {(ours + again) / 2 / theirs:.2f} times as fast")
    for name, data in (("BL30K", bl30k_stage(root / "BL30K", lambda samples: 1, seed=0)),
                       ("DAVIS + YouTube", video_stage(root / "DAVIS", root / "YouTube", lambda samples: 1, seed=0))):
        print(f"{name:<20}  {positive_float(lambda index, data=data: data[(0, index % len(data))], args.samples):6.1f} samples/s")


if __name__ == "__main__":
    run(main)
