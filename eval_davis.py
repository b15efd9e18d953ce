"""Propagate masks through the videos of DAVIS 2017 (val or test-dev, 480p) and score the result.

The input masks are those of the first frames. Writes DIR/<video>/<frame>.png, palette PNGs with the objects numbered
1, 2, ...
"""
from pathlib import Path

from inference.arguments import benchmark_parser
from util.cli import run


def main() -> int:
    parser = benchmark_parser(__doc__, zip_folder="")
    parser.add_argument("--davis", type=Path, default="../DAVIS/2017", metavar="DIR",
                        help="folder with trainval and test-dev (default: %(default)s)")
    parser.add_argument("--split", choices=["val", "testdev"], default="val", help="default: %(default)s")
    args = parser.parse_args()

    from dataset.davis import davis_2017
    from inference.evaluation import evaluate
    return evaluate(lambda: davis_2017(args.davis, args.split), args)


if __name__ == "__main__":
    run(main)
