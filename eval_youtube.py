"""Propagate the masks of every YouTubeVOS video, whose objects are given on the frames where they first appear.

Computes at 480 pixels on the shorter side (the lite network at its own) and writes DIR/<video>/<frame>.png at the
original size, palette masks with the original labels, for every frame from the first label on, as the published
script does.
"""
from pathlib import Path

from dataset.youtube import youtube_palette, youtube_vos
from inference.evaluation import benchmark_parser, evaluate
from util.cli import run

SIZE = 480                   # pixels of the shorter side, as published


def main() -> int:
    parser = benchmark_parser(__doc__, SIZE)
    parser.add_argument("--yv", type=Path, default="../YouTube", metavar="DIR",
                        help="the folder with all_frames and the splits (default: %(default)s)")
    parser.add_argument("--split", default="valid", help="such as valid or test (default: %(default)s)")
    args = parser.parse_args()
    videos = youtube_vos(args.yv, args.split)
    return evaluate(videos, args, youtube_palette(videos))


if __name__ == "__main__":
    run(main)
