"""Propagate the first mask of every DAVIS 2016 validation video (one object each) and score the result.

Writes DIR/<video>/<frame>.png, grey masks of 0 and 255, as the published script does.
"""
from pathlib import Path

from dataset.davis import davis_2016
from inference.evaluation import benchmark_parser, evaluate
from util.cli import run


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--davis", type=Path, default="../DAVIS/2016", metavar="DIR",
                        help="the DAVIS 2016 folder (default: %(default)s)")
    args = parser.parse_args()
    return evaluate(davis_2016(args.davis), args, palette=None)


if __name__ == "__main__":
    run(main)
