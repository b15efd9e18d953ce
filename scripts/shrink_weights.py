"""Convert weights, or those of a training checkpoint, to 16 bits: half the file size. Several files are averaged.

  python -m scripts.shrink_weights saves/X/X_4000.pth model/weights/lite.pth
  python -m scripts.shrink_weights saves/X/X_1500.pth saves/Y/Y_2400.pth model/weights/lite.pth
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from util.cli import InputError, run


def shrink_weights(weights: Sequence[Path], output: Path) -> None:
    """Write the mean of the weights in files, at least one, in 16 bits.

    Raises:
        InputError: the files are of different networks, or a weight is too large for 16 bits.
    """
    from model.checkpoint import plain_state, read_network, save
    first, *others = (plain_state(read_network(path)) for path in weights)
    for path, other in zip(weights[1:], others, strict=True):
        if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in first.items()}:
            raise InputError(f"{path}: weights of another network than {weights[0]}")
    for name, value in first.items():
        if value.is_floating_point():
            first[name] = (sum((other[name] for other in others), value) / len(weights)).half()
        if not first[name].isfinite().all():
            raise InputError(f"{weights[0]}: {name} is too large for 16 bits")
    save(first, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", metavar="FILE", help="weights or a training checkpoint")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="output file; replaced if it exists")
    args = parser.parse_args()
    shrink_weights(args.weights, args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
