"""Draw a clip with exact masks: textured objects that move, turn and grow over a panning background.

  python -m scripts.draw_clip DIR [--frames 20] [--width 320] [--height 240] [--objects 3] [--seed 0]

Output: DIR/frames/%05d.jpg and DIR/masks/%05d.png (palette masks). The same seed draws the same clip.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import InputError, at_least, run

MAX_SIDE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder")
    for name, smallest, default, what in (
            ("frames", 1, 20, "number of frames"), ("width", 1, 320, "in pixels"), ("height", 1, 240, "in pixels"),
            ("objects", 1, 3, "number of objects"), ("seed", 0, 0, "random seed")):
        parser.add_argument(f"--{name}", type=at_least(smallest), default=default, metavar="N",
                            help=f"{what} (default: %(default)s)")
    args = parser.parse_args()
    from dataset.image_io import MAX_OBJECTS
    from dataset.synthetic import write_clip
    for name, largest in (("objects", MAX_OBJECTS), ("width", MAX_SIDE), ("height", MAX_SIDE)):
        if getattr(args, name) > largest:
            raise InputError(f"--{name} {getattr(args, name)}: must be at most {largest}")
    for name in ("frames", "masks"):
        if (args.folder / name).exists():
            raise InputError(f"{args.folder / name}: exists already; choose another folder")
    write_clip(**vars(args))


if __name__ == "__main__":
    run(main)
