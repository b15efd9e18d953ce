"""Draw a clip with exact masks: textured objects that move, turn and grow over a panning background.

  python -m scripts.draw_clip DIR [--frames 20] [--width 320] [--height 240] [--objects 3] [--seed 0]

Output: DIR/frames/%05d.jpg and DIR/masks/%05d.png (palette masks). The same seed draws the same clip.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import InputError, non_negative_int, positive_int, run

MAX_SIDE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder")
    for name, default in (("frames", 20), ("width", 320), ("height", 240), ("objects", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=non_negative_int if name == "seed" else positive_int, default=default,
                            metavar="N", help="default: %(default)s")
    args = vars(parser.parse_args())
    folder = args.pop("folder")
    from dataset.image_io import MAX_OBJECTS
    from dataset.synthetic import write_clip
    for name, largest in (("objects", MAX_OBJECTS), ("width", MAX_SIDE), ("height", MAX_SIDE)):
        if args[name] > largest:
            raise InputError(f"--{name} {args[name]}: must be at most {largest}")
    for name in ("frames", "masks"):
        if (folder / name).exists():
            raise InputError(f"{folder / name}: exists already; choose another folder")
    write_clip(folder, **args)


if __name__ == "__main__":
    run(main)
