"""Show where points of one image are in another: click in the window `Source`; the window `Target` shows a heat map.

  python try_correspondence.py --src_image examples/00015.jpg --tar_image examples/00020.jpg
  python try_correspondence.py --points 160,120 200,90 --output output/correspondence        # without windows

Drag to move the point. Hold Shift or Ctrl while dragging to mark a region. The right button swaps source and target;
s saves both views; Esc quits. Views that exist already are kept: new ones get a number.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from inference.arguments import add_network_arguments
from util.cli import InputError, run

EXAMPLES = Path(__file__).parent / "examples"


def point(text: str) -> tuple[int, int]:
    """Argument type: x,y."""
    x, comma, y = text.partition(",")
    if not (comma and x.isdecimal() and y.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a point, such as 160,120")
    return int(x), int(y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--src_image", type=Path, default=EXAMPLES / "00015.jpg", metavar="FILE", help="default: examples/00015.jpg")
    add("--tar_image", type=Path, default=EXAMPLES / "00020.jpg", metavar="FILE", help="default: examples/00020.jpg")
    add_network_arguments(parser)
    add("--points", type=point, nargs="+", metavar="X,Y",
        help="write the views for these pixels of the source image instead of opening windows")
    add("--output", type=Path, default=Path("output/correspondence"), metavar="DIR",
        help="where views are written (default: %(default)s)")
    args = parser.parse_args()

    from dataset.video_reader import ImageFrames
    from inference.correspondence_viewer import CorrespondenceViewer, has_display, save_views
    from model.checkpoint import load_network
    from util.device import allow_tf32, pick_device

    images = [next(ImageFrames([path], exif_rotation=True).read([0], workers=0))
              for path in (args.src_image, args.tar_image)]
    height, width = images[0].shape[:2]
    for x, y in args.points or ():
        if x >= width or y >= height:
            raise InputError(f"--points {x},{y}: outside {args.src_image}, which has {width}x{height} pixels")
    if not args.points and not has_display():
        raise InputError("no display to open windows on; use --points, such as --points 160,120 --output DIR")
    allow_tf32(False)
    viewer = CorrespondenceViewer(load_network(args.model, pick_device(args.device)), *images, args.output)
    if not args.points:
        return viewer.run()
    viewer.points = args.points
    paths = save_views(args.output, viewer.views())
    for x, y in args.points:
        print("{},{} -> {},{}".format(x, y, *viewer.correspondence.find(x, y)))
    print("views:", *paths)


if __name__ == "__main__":
    run(main)
