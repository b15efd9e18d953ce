"""Convert weights, or those of a training checkpoint, to 16 bits: half the file size.

  python -m scripts.shrink_weights saves/X/X_4000.pth model/weights/lite.pth
"""
from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import InputError, run


def shrink_weights(weights: Path, output: Path) -> None:
    """Write the weights of a file in 16 bits; InputError if a weight is too large for them."""
    from model.checkpoint import plain_state, read_network, save
    state = plain_state(read_network(weights))
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = value.half()
        if not state[name].isfinite().all():
            raise InputError(f"{weights}: {name} is too large for 16 bits")
    save(state, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, metavar="FILE", help="weights or a training checkpoint")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="output file; replaced if it exists")
    args = parser.parse_args()
    shrink_weights(args.weights, args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
