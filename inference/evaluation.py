"""The common road of the benchmark scripts: propagate through every video, write its masks, time and score."""
from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch

from dataset.image_io import write_mask
from dataset.video import Video
from inference.arguments import add_arguments
from inference.propagation import PropagationConfig, Timer, load_for_propagation, propagate
from inference.results import RunSettings, check_output_is_not_input, check_replaceable
from inference.scoring import score, table, write_csv
from model.network import PropagationNetwork
from util.cli import InputError
from util.device import ProcessGroup, allow_tf32, pick_device
from util.files import Writer, atomic_folder, prepare_folder
from util.progress import frames_bar


def benchmark_parser(description: str, size: int | None = None) -> argparse.ArgumentParser:
    """The flags that all benchmark scripts have. ``size``: see `add_arguments`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="where to write DIR/<video>/<frame>.png; finished videos are skipped on a re-run")
    add_arguments(parser, size)
    parser.add_argument("--overwrite", action="store_true", help="redo videos that are finished already")
    parser.add_argument("--no_score", action="store_true",
                        help="do not compute J and F (else done where all frames' true masks are there)")
    return parser


def evaluate(videos: list[Video], args: argparse.Namespace, palette: bytes | None) -> int:
    """Propagate through the videos and report, sharing them with the other processes that ``torchrun`` started.

    A video that cannot be used is reported, and the others go on.

    Args:
        videos: the data set.
        args: of `benchmark_parser`.
        palette: of the masks; None writes grey ones.

    Returns:
        the exit code: 2 if a video could not be used.
    """
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    network = load_for_propagation(args.model, device)
    options = PropagationConfig.from_args(args, network)
    prepare_folder(args.output)
    for video in videos:
        check_output_is_not_input(args.output / video.name, video)
    share = ProcessGroup.join()
    if share.rank == 0:
        print(f"network: {network.variant} ({args.model})")
    notes = RunSettings(args.output, _settings(args, options, device))
    mine = videos[share.rank::share.world]
    to_do = [video for video in mine if args.overwrite or not _finished(video, args.output)]
    for video in mine:
        if video in to_do:
            check_replaceable(args.output / video.name, video.frames.names, overwrite=True)
        else:
            notes.check(video.name)
    clock, failures = Timer(), []
    bar = frames_bar(sum(len(video.frames.names) for video in to_do)) if share.rank == 0 else None
    done = 0
    for video in to_do:
        try:
            notes.forget(video.name)
            for index in _write_video(network, video, options, args.output, palette, clock):
                if bar:
                    bar.update(done + index + 1)
            notes.write(video.name)
        except InputError as error:
            print(f"\nerror: {video.name}: {error}", file=sys.stderr, flush=True)
            failures.append(video.name)
        done += len(video.frames.names)
    if bar:
        bar.finish()

    shares = share.gather((clock.seconds, clock.frames, len(mine) - len(to_do), failures))
    if share.rank > 0:
        return 0
    # Processes work side by side: the longest of their times is the whole's.
    seconds, frames = max(part[0] for part in shares), sum(part[1] for part in shares)
    skipped, failures = sum(part[2] for part in shares), [name for part in shares for name in part[3]]
    if skipped:
        print(f"{skipped} of {len(videos)} videos were finished already and skipped (--overwrite redoes them)")
    print(f"Total processing time: {seconds}")
    print(f"Total processed frames: {frames}")
    print(f"FPS: {frames / seconds if seconds else 0.0}")
    if not args.no_score:
        _report_scores([video for video in videos if video.name not in failures], args)
    if failures:
        print(f"error: {len(failures)} of {len(videos)} videos failed: {', '.join(failures)}", file=sys.stderr)
    return 2 if failures else 0


def _write_video(network: PropagationNetwork, video: Video, options: PropagationConfig, output: Path, palette: bytes | None,
                 clock: Timer) -> Iterator[int]:
    """Write one video's masks, telling the index of each frame that is done."""
    video.check()
    with atomic_folder(output / video.name) as folder, Writer() as writer:
        for index, label_map, _ in propagate(network, video, options, range(len(video.frames.names)), clock):
            writer.submit(write_mask, folder / f"{video.frames.names[index]}.png", label_map, palette)
            yield index


def _finished(video: Video, output: Path) -> bool:
    """Folders appear whole, and every video's last frame has a mask."""
    return (output / video.name / f"{video.frames.names[-1]}.png").is_file()


def _settings(args: argparse.Namespace, options: PropagationConfig, device: torch.device) -> dict:
    """What the masks depend on."""
    with open(args.model, "rb") as file:
        checksum = 0
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return {"model": f"{checksum:08x}", "top_k": options.top_k, "kernel_sigma": options.kernel_sigma,
            "mem_every": options.mem_every, "max_memory_frames": options.max_memory_frames, "amp": options.amp,
            "size": options.size, **({"tf32": args.tf32} if device.type == "cuda" else {})}


def _report_scores(videos: list[Video], args: argparse.Namespace) -> None:
    known = [video for video in videos if video.ground_truth is not None]
    if not known:
        print("No scores: the true masks of all frames are not there.")
        return
    bar = frames_bar(len(known), "videos")
    scores = score(known, args.output, args.num_workers, bar.increment)
    bar.finish()
    if not scores:
        print("No scores: no video has more than two frames with usable true masks.")
        return
    write_csv(scores, args.output / "scores.csv")
    print(table(scores))
    if len(known) < len(videos):
        print(f"(of the {len(known)} of {len(videos)} videos with true masks of all frames)")
