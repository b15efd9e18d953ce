"""Propagate masks through the videos of YouTubeVOS, at 480 pixels on the shorter side.

The input masks are those of the frames on which objects first appear. Writes DIR/<video>/<frame>.png, palette masks at
the size of the frames with the labels of the input masks, for each frame from the first object on.
"""
from pathlib import Path

from inference.arguments import benchmark_parser
from util.cli import run


def main() -> int:
    parser = benchmark_parser(__doc__, size=480, zip_folder="Annotations")
    parser.add_argument("--yv", type=Path, default="../YouTube", metavar="DIR",
                        help="folder with all_frames and the splits (default: %(default)s)")
    parser.add_argument("--split", default="valid", help="such as valid or test (default: %(default)s)")
    args = parser.parse_args()

    from dataset.youtube import youtube_vos
    from inference.evaluation import evaluate
    return evaluate(lambda: youtube_vos(args.yv, args.split, requested=args.zip is not None), args)


if __name__ == "__main__":
    run(main)
