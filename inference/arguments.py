"""Command-line arguments of the scripts that load a network or propagate masks, without torch."""
from __future__ import annotations

import argparse
from pathlib import Path

from model import defaults
from util.cli import at_least, non_negative_int, positive_int


def weights_file(text: str) -> Path:
    """Argument type: a weights file, or ``published`` or ``lite`` for the project's own."""
    if text == "lite":
        return defaults.LITE_WEIGHTS
    if text != "published":
        return Path(text)
    path = defaults.published_weights()
    if path is None:
        raise argparse.ArgumentTypeError(f"{defaults.PUBLISHED_WEIGHTS} does not exist; get it with "
                                         f"`python download_model.py`")
    return path


def inference_side(text: str) -> int:
    """Argument type: pixels of the shorter side at inference, or -1 for the size of the frames."""
    return -1 if text == "-1" else at_least(defaults.STRIDE)(text)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--device``."""
    parser.add_argument(
        "--model", type=weights_file, default=defaults.default_weights(), metavar="FILE",
        help=f"weights: a state dict or a training checkpoint, or the word published ({defaults.PUBLISHED_WEIGHTS}) or "
             f"lite (the network included in the project) (default: {defaults.PUBLISHED_WEIGHTS} if it exists, else "
             f"lite)")
    add_device_argument(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", metavar="NAME",
                        help="cpu, cuda, cuda:1, mps, xpu (default: CUDA if available, else MPS, else CPU)")


def add_arguments(parser: argparse.ArgumentParser, size: int | None, max_memory_frames: int | None = None) -> None:
    """Add the arguments of every script that propagates masks.

    Args:
        size: default pixels of the shorter side at inference for the published network; None: the size of the frames.
        max_memory_frames: default of ``--max_memory_frames``; None: no limit.
    """
    published, lite = (defaults.INFERENCE_DEFAULTS[name] for name in ("published", "lite"))
    by_network = "" if size == lite.size else f"; lite: {lite.size}"
    parser.set_defaults(default_size=size)
    add_network_arguments(parser)
    add = parser.add_argument
    add("--size", type=inference_side, metavar="PIXELS",
        help=f"pixels of the shorter side at inference, -1 for the size of the frames; masks are always written at the "
             f"size of the frames (default: {size or -1}{by_network})")
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument("--use_km", action="store_true",
                        help=f"kernelized memory reading, sigma {defaults.KERNEL_SIGMA} stride-16 locations (lite: "
                             f"{lite.kernel_sigma:g}) (default: off; lite: on)")
    kernel.add_argument("--no_km", action="store_true", help="no kernelized memory reading, for any network")
    reading = parser.add_mutually_exclusive_group()
    reading.add_argument("--no_top", action="store_true", help="read all memory locations instead of the top k")
    reading.add_argument("--top_k", type=positive_int, metavar="K",
                         help=f"number of memory locations read by each query location (default: {published.top_k}; "
                              f"lite: {lite.top_k})")
    add("--mem_every", type=positive_int, metavar="N",
        help=f"every N-th frame becomes a memory frame (default: {published.mem_every}; lite: {lite.mem_every})")
    add("--max_memory_frames", type=positive_int, default=max_memory_frames, metavar="N",
        help=f"keep at most N memory frames: the first one and the latest N-1 (default: "
             f"{max_memory_frames or 'no limit'})")
    add_precision_arguments(parser)
    add("--num_workers", type=non_negative_int, default=2, metavar="N",
        help="threads that read frames ahead (default: %(default)s)")


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--amp``, ``--no_amp`` and ``--tf32``."""
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--amp", action="store_true", default=None,
                           help="automatic mixed precision: 16 bits where that is safe, masks differ slightly "
                                "(default: off; lite: on if it runs on a CPU with bfloat16 instructions)")
    precision.add_argument("--no_amp", action="store_false", dest="amp", help="no mixed precision, for any network")
    parser.add_argument("--tf32", action="store_true",
                        help="allow TF32 on NVIDIA GPUs; masks differ slightly (default: off)")


def benchmark_parser(description: str, size: int | None = None,
                     zip_folder: str | None = None) -> argparse.ArgumentParser:
    """A parser for benchmark scripts. ``size``: see `add_arguments`; ``zip_folder``: of the videos, with ``--zip``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="folder for the masks DIR/<video>/<frame>.png; finished videos in it are skipped")
    add_arguments(parser, size)
    parser.set_defaults(model=None)         # so that the lite network replaces missing weights with a warning
    parser.add_argument("--overwrite", action="store_true", help="redo finished videos")
    parser.add_argument("--no_score", action="store_true",
                        help="do not compute J and F (default: computed where there is ground truth)")
    parser.add_argument("--report", action="store_true",
                        help="also write DIR/report.html: scores, J and F over time, best and worst frames, settings")
    parser.add_argument("--baseline", type=Path, metavar="FILE",
                        help="scores.csv of an earlier run to compare the scores with")
    parser.set_defaults(zip=None, zip_folder=zip_folder)
    if zip_folder is not None:
        parser.add_argument("--zip", type=Path, metavar="FILE",
                            help="also write the masks to a zip file for the server of the benchmark, after a check")
    return parser
