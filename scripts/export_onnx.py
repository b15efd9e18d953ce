"""Export a network to ONNX, to run it without PyTorch; see docs/library.md.

  python -m scripts.export_onnx DIR [--model FILE] [--size HEIGHT WIDTH] [--compare N] [--objects K]

Output: encode_query.onnx, memorize.onnx, readout.onnx and segment.onnx in DIR, which `inference.onnx_core.OnnxCore`
runs. The frame size is fixed; the numbers of objects and of memory locations are not. --compare propagates a drawn
clip of N frames with PyTorch and with ONNX Runtime in turn, frame by frame, and prints the median seconds per frame of
both and the percentage of pixels with equal labels.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from inference.arguments import weights_file
from model.defaults import STRIDE, default_weights
from util.cli import InputError, at_least, extras_for, positive_int, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="output folder")
    add("--model", type=weights_file, default=default_weights(), metavar="FILE",
        help="weights, as for propagate.py (default: the published ones if they exist, else lite)")
    add("--size", type=at_least(STRIDE), nargs=2, default=[480, 854], metavar=("HEIGHT", "WIDTH"),
        help="frame size in pixels (default: 480 854)")
    add("--compare", type=at_least(3), metavar="N", help="compare with PyTorch on a drawn clip of N frames")
    add("--objects", type=positive_int, default=1, metavar="K", help="objects of that clip (default: %(default)s)")
    args = parser.parse_args()
    if args.objects > 255:
        raise InputError(f"--objects {args.objects}: must be at most 255")
    with extras_for("scripts/export_onnx.py"):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    from inference.propagation import load_for_propagation
    from scripts.onnx_export import compare, export
    network = load_for_propagation(args.model, "cpu")
    for path in export(network, args.size, args.folder):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    if args.compare:
        result = compare(network, args.folder, args.size, args.compare, args.objects)
        print(f"{100 * result.equal:.4f} % of the pixels have equal labels; seconds per frame: PyTorch "
              f"{result.pytorch:.3g}, ONNX Runtime {result.onnx:.3g}")


if __name__ == "__main__":
    run(main)
