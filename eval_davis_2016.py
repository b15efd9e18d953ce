"""Propagate masks through the validation videos of DAVIS 2016 (480p, one object each) and score the result.

The input masks are those of the first frames. Writes DIR/<video>/<frame>.png, grey masks of 0 and 255.
"""
from pathlib import Path

from inference.arguments import benchmark_parser
from util.cli import run


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--davis", type=Path, default="../DAVIS/2016", metavar="DIR",
                        help="DAVIS 2016 folder (default: %(default)s)")
    args = parser.parse_args()

    from dataset.davis import davis_2016
    from inference.evaluation import evaluate
    return evaluate(lambda: (davis_2016(args.davis), None), args)


if __name__ == "__main__":
    run(main)
