"""See where the points of one picture are in another: click in the window `Source`, look at the window `Target`.

  python try_correspondence.py --src_image examples/00015.jpg --tar_image examples/00020.jpg
  python try_correspondence.py --points 160,120 200,90 --output output/correspondence        # without windows

Drag, and the heat map follows; hold Shift or Ctrl to paint a region; the right button lets source and target change
places; s saves both views; Esc leaves.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from dataset.image_io import read_frame
from inference.correspondence_viewer import VIEW_FILES, CorrespondenceViewer, has_display, save_views
from model.checkpoint import load_network
from model.defaults import PUBLISHED_WEIGHTS, STRIDE, default_weights
from util.cli import InputError, run
from util.device import allow_tf32, pick_device

EXAMPLES = Path(__file__).parent / "examples"


def point(text: str) -> tuple[int, int]:
    """An argument of the form x,y."""
    x, comma, y = text.partition(",")
    if not (comma and x.isdecimal() and y.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a point, such as 160,120")
    return int(x), int(y)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--src_image", type=Path, default=EXAMPLES / "00015.jpg", metavar="FILE", help="default: examples/00015.jpg")
    add("--tar_image", type=Path, default=EXAMPLES / "00020.jpg", metavar="FILE", help="default: examples/00020.jpg")
    add("--model", type=Path, default=default_weights(), metavar="FILE",
        help=f"default: {PUBLISHED_WEIGHTS} if it is there, else the lite network that comes with the code")
    add("--points", type=point, nargs="+", metavar="X,Y",
        help="write the views for these pixels of the source picture instead of opening windows")
    add("--output", type=Path, default=Path("output/correspondence"), metavar="DIR",
        help="where views are written (default: %(default)s)")
    add("--device", metavar="NAME", help="cpu, cuda, mps (default: CUDA if there is a GPU, else MPS, else the CPU)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    pictures = [read_frame(path) for path in (args.src_image, args.tar_image)]
    for path, picture in zip((args.src_image, args.tar_image), pictures, strict=True):
        if min(picture.shape[:2]) < STRIDE:
            raise InputError(f"{path}: {picture.shape[1]}x{picture.shape[0]} pixels, both sides need {STRIDE} or more")
    height, width = pictures[0].shape[:2]
    for x, y in args.points or ():
        if x >= width or y >= height:
            raise InputError(f"--points {x},{y}: outside of {args.src_image}, which has {width}x{height} pixels")
    if not args.points and not has_display():
        raise InputError("no display to open windows on; name points instead, such as --points 160,120 --output DIR")
    for path in (args.src_image, args.tar_image):
        if path.resolve() in {(args.output / name).resolve() for name in VIEW_FILES}:
            raise InputError(f"{path}: would be overwritten by the view of that name; name another --output")
    allow_tf32(False)
    windows = CorrespondenceViewer(load_network(args.model, pick_device(args.device)), *pictures, args.output)
    if not args.points:
        return windows.run()
    windows.points = args.points
    save_views(args.output, windows.views())
    for x, y in args.points:
        print("{},{} -> {},{}".format(x, y, *windows.correspondence.find(x, y)))
    print("views: " + ", ".join(str(args.output / name) for name in VIEW_FILES))


if __name__ == "__main__":
    run(main)
