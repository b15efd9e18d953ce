"""Resize YouTubeVOS (or any data set of frames and masks) to 480 pixels on the shorter side.

  python -m scripts.resize_youtube ../YouTube/train ../YouTube/train_480p

Frames: bicubic, written as JPEG. Masks: nearest neighbour, palettes are kept. Smaller images are enlarged, as in the
published script. An interrupted run resumes when you start it again.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from util.cli import positive_int, run


def main(description: str | None = __doc__, shorter: int = 480, method: str = "BICUBIC") -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="IN", help="folder with images, at any depth")
    parser.add_argument("output", type=Path, metavar="OUT", help="output folder; gets the same subfolders")
    parser.add_argument("--size", type=positive_int, default=shorter, metavar="PIXELS",
                        help="shorter side (default: %(default)s)")
    parser.add_argument("--no_enlarge", action="store_true", help="copy smaller images unchanged")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), metavar="N",
                        help="processes (default: all cores, %(default)s)")
    args = parser.parse_args()
    from dataset.resize import resize_folder
    resize_folder(args.input, args.output, args.size, args.workers, method, not args.no_enlarge)
    print(f"done: {args.output}")


if __name__ == "__main__":
    run(main)
