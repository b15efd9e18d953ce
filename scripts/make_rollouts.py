"""Predict masks for the DAVIS training videos, forward and backward, for `train.py --rollouts`.

  python -m scripts.make_rollouts DIR [--davis_root ../DAVIS] [--model lite] [--size 480]

The masks of the first frame with an object are propagated to the end, and those of the last one to the start. The
predicted masks are DIR/forward/<video>/<frame>.png and DIR/backward/<video>/<frame>.png. Finished videos are skipped,
so that the same command resumes; use a new folder for other weights or settings. If a video cannot be used, its error
is printed and the others continue; the exit code is then 2.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.arguments import add_network_arguments, inference_side
from util.cli import InputError, run

if TYPE_CHECKING:
    from inference.stream import StreamCore


def make_rollout(core: StreamCore, files: Sequence[tuple[Path, Path]], folder: Path) -> None:
    """Propagate the first mask with an object through a video, and write the masks to a folder.

    Args:
        core: one that has seen no frame.
        files: the (frame, mask) files of the video, in the order in which it is propagated.

    Raises:
        InputError: a file cannot be used, or no mask has an object.
    """
    from dataset.image_io import fit_mask, read_frame, read_mask, write_mask
    from util.files import atomic_folder
    from util.palette import davis_palette
    with atomic_folder(folder) as partial:
        for frame_path, mask_path in files:
            frame, mask = read_frame(frame_path), None
            if not core.labels:
                mask = fit_mask(mask_path, read_mask(mask_path), *frame.shape[:2])
                if not mask.any():
                    continue
            try:
                label_map = core.segment_frame(frame, mask)
            except ValueError as error:                     # such as a frame of another size
                raise InputError(f"{frame_path}: {error}") from error
            write_mask(partial / mask_path.name, label_map, davis_palette())
        if not core.labels:
            raise InputError(f"{files[0][1].parent}: no object in these masks")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder")
    parser.add_argument("--davis_root", type=Path, default="../DAVIS", metavar="DIR",
                        help="DAVIS folder, which contains 2017 (default: %(default)s)")
    parser.add_argument("--size", type=inference_side, default=480, metavar="PIXELS",
                        help="pixels of the shorter side at inference, -1 for the size of the frames (default: "
                             "%(default)s)")
    add_network_arguments(parser)
    args = parser.parse_args()
    from dataset.rollouts import PASSES
    from dataset.stages import davis_training_videos
    from inference.propagation import load_for_propagation
    from inference.stream import StreamCore
    from util.device import pick_device
    from util.files import prepare_folder
    from util.progress import progress_bar
    videos = davis_training_videos(args.davis_root)
    network = load_for_propagation(args.model, pick_device(args.device))
    prepare_folder(args.folder)
    size, failed = None if args.size == -1 else args.size, False
    with progress_bar(len(PASSES) * len(videos), "passes") as bar:
        for video in videos:
            for name, step in PASSES.items():
                folder = args.folder / name / video[0][0].parent.name
                try:
                    if not folder.is_dir():
                        make_rollout(StreamCore(network, size), video[::step], folder)
                except InputError as error:
                    print(f"\nerror: {error}", file=sys.stderr, flush=True)
                    failed = True
                bar.increment()
    return 2 if failed else 0


if __name__ == "__main__":
    run(main)
