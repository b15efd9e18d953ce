"""Propagate the first masks of every video of DAVIS 2017 (val or test-dev, 480p) and score the result.

Writes DIR/<video>/<frame>.png, palette masks with the objects numbered from 1, as the published script does.
"""
from pathlib import Path

from dataset.davis import davis_2017, davis_2017_palette
from inference.evaluation import benchmark_parser, evaluate
from util.cli import run


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--davis", type=Path, default="../DAVIS/2017", metavar="DIR",
                        help="the folder with trainval and test-dev (default: %(default)s)")
    parser.add_argument("--split", choices=["val", "testdev"], default="val", help="default: %(default)s")
    args = parser.parse_args()
    return evaluate(davis_2017(args.davis, args.split), args, davis_2017_palette(args.davis))


if __name__ == "__main__":
    run(main)
