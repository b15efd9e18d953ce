"""Resize YouTubeVOS (or any data set of frames and masks) to 480 pixels on the shorter side.

  python -m scripts.resize_youtube ../YouTube/train ../YouTube/train_480p

Frames bicubic, as JPEG; masks to the nearest pixel, with their palettes. Can be stopped and started again.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from PIL import Image

from dataset.resize import resize_folder
from util.cli import InputError, pluralize, positive_int, run, warn
from util.progress import frames_bar


def main(description: str | None = __doc__, shorter: int = 480,
         method: Image.Resampling = Image.Resampling.BICUBIC) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="IN", help="the folder with the pictures, in it or below it")
    parser.add_argument("output", type=Path, metavar="OUT", help="where they go, in the same places")
    parser.add_argument("--size", type=positive_int, default=shorter, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), metavar="N",
                        help="processes (default: %(default)s, the machine's)")
    args = parser.parse_args()
    bars = []

    def progress(count: int) -> object:
        bars.append(frames_bar(count, "pictures"))
        return bars[0].increment
    failures = resize_folder(args.input, args.output, args.size, method, args.workers, progress)
    bars[0].finish(dirty=True)
    for message in failures:
        warn(message)
    if failures:
        raise InputError(f"{pluralize(len(failures), 'picture')} could not be resized, see above; the others are done")
    print(f"done: {args.output}")


if __name__ == "__main__":
    run(main)
