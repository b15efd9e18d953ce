"""Evaluation loop shared by the benchmark scripts: propagates masks through all videos, measures speed and scores."""
from __future__ import annotations

import argparse
import json
import mmap
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from dataset.image_io import write_mask
from dataset.video import Video
from inference.propagation import PropagationConfig, Run, Timer, load_for_propagation, propagate
from inference.results import check_output_is_not_input, check_replaceable
from inference.scoring import ObjectScore, read_csv, score, table, write_csv
from inference.submission import check_zip_path, write_submission
from model.defaults import PUBLISHED_WEIGHTS, default_weights, published_weights
from model.network import PropagationNetwork
from util.cli import InputError, warn
from util.device import ProcessGroup, allow_tf32, peak_memory, pick_device
from util.files import LockedError, atomic_folder, prepare_folder, write_atomic
from util.parallel import map_in_threads
from util.progress import progress_bar

LITE_STANDS_IN = (f"{PUBLISHED_WEIGHTS} does not exist, so these are results of the lite network; get the published "
                  f"weights with `python download_model.py`, or choose --model lite")

NO_SCORES = "No scores: no video has usable ground truth for more than two frames."


def evaluate(read_videos: Callable[[], tuple[list[Video], bytes | None]], args: argparse.Namespace) -> int:
    """Propagate masks through the videos of a benchmark, write the masks, and print the speed and the scores.

    The processes that ``torchrun`` starts divide the videos among them. If a video cannot be used, its error is printed
    and the others continue; the exit code is then 2.

    Args:
        read_videos: returns the videos, and the palette of the masks to write; None writes grey masks.
        args: of `inference.arguments.benchmark_parser`.
    """
    group = ProcessGroup.join()
    if args.no_score and (args.report or args.baseline):
        raise InputError("--report and --baseline need the scores; leave out --no_score")
    if args.report:
        from inference.report import (  # raises an error if matplotlib is missing
            settings_rows,
            speed_and_memory,
            write_report,
        )
    baseline = read_csv(args.baseline) if args.baseline else None
    if args.zip:
        check_zip_path(args.zip)
    videos, palette = read_videos()
    lite_stands_in = args.model is None and published_weights() is None
    args.model = args.model or default_weights()
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    network = load_for_propagation(args.model, device)
    config = PropagationConfig.from_args(args, network)
    settings = run_settings(args, config, device)
    prepare_folder(args.output)
    for video in videos:
        check_output_is_not_input(args.output / video.name, video)
    mine = videos[group.rank::group.world_size]
    to_do = [video for video in mine if args.overwrite or not _is_finished(video, args.output, settings)]
    for video in to_do:
        check_replaceable(args.output / video.name, video.frames.names, overwrite=True)
    group.gather(None)                          # ends this process if another has failed
    if group.rank == 0:
        print(f"network: {network.variant} ({args.model})")
        if lite_stands_in:
            warn(LITE_STANDS_IN)
    timer = Timer()
    failed = _propagate_videos(to_do, network, config, palette, settings, args, timer, group)
    results = group.gather((timer.seconds, timer.frames, len(mine) - len(to_do), failed))
    if group.rank > 0:
        return 0
    seconds, frames, skipped, failures = zip(*results, strict=True)
    if any(skipped):
        print(f"{sum(skipped)} of {len(videos)} videos were finished already and skipped (--overwrite redoes them)")
    print(f"Total processing time: {max(seconds)}")
    print(f"Total processed frames: {sum(frames)}")
    if any(frames):
        print(f"FPS{' per process' if group.world_size > 1 else ''}: {sum(frames) / sum(seconds)}")
        if group.world_size > 1:
            print(f"FPS of the {group.world_size} processes together: {sum(frames) / max(seconds)}")
    failed = sum(failures, start=[])
    if not args.no_score:
        scores = score([video for video in videos if video.name not in failed], args.output, args.num_workers)
        scored = len({row.video for row in scores})
        print(table(scores, baseline) if scores else NO_SCORES)
        if 0 < scored < len(videos):
            print(f"({scored} of {len(videos)} videos have scores)")
        if scores:
            write_csv(scores, args.output / "scores.csv", network.variant, settings["model"])
        elif (args.output / "scores.csv").exists():
            warn(f"{args.output / 'scores.csv'} has the scores of an earlier run")
        if args.report:
            report = args.output / "report.html"
            runs = _runs(args.output, [video for video in videos if video.name not in failed])
            write_report(report, f"{Path(sys.argv[0]).stem}: {args.output.resolve().name}",
                         [(video, args.output / video.name) for video in videos], scores,
                         speed_and_memory(runs),
                         settings_rows(network, args.model, settings) | {"baseline": args.baseline}, baseline,
                         [*_notes(videos, scores, failed, len(runs)), *[LITE_STANDS_IN] * lite_stands_in])
            print(f"report: {report}")
        if lite_stands_in:
            print(f"warning: {LITE_STANDS_IN}")
    if failed:
        print(f"error: {len(failed)} of {len(videos)} videos failed: {', '.join(failed)}", file=sys.stderr)
    problems = write_submission(args.zip, videos, args.output, args.zip_folder) if args.zip else []
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        earlier = "; the file there is of an earlier run" if args.zip.exists() else ""
        print(f"error: {args.zip}: not written, since not all masks can be submitted{earlier}", file=sys.stderr)
    elif args.zip:
        print(f"zip: {args.zip}")
    return 2 if failed or problems else 0


def _notes(videos: list[Video], scores: list[ObjectScore], failed: list[str], runs: int) -> list[str]:
    """Lines for a report: the videos that failed, those without scores, and how many tell how they were made."""
    scored = {row.video for row in scores}
    groups = {"failed": failed,
              "without scores": [video.name for video in videos if video.name not in {*scored, *failed}]}
    notes = [f"{kind}: {', '.join(names)} ({len(names)} of {len(videos)} videos)"
             for kind, names in groups.items() if names]
    if runs < len(videos) - len(failed):
        notes.append(f"speed and memory are those of {runs} of {len(videos)} videos; they are not known for the others")
    return notes


def _propagate_videos(videos: list[Video], network: PropagationNetwork, config: PropagationConfig,
                      palette: bytes | None, settings: dict, args: argparse.Namespace, timer: Timer,
                      group: ProcessGroup) -> list[str]:
    """Propagate masks through the videos and write them; returns the names of the videos that failed.

    A video that another run is writing to the same folder is waited for.
    """
    failed, locked, queue, device = [], set(), deque(videos), next(network.parameters()).device
    frames = sum(len(video.frames.names) for video in videos)
    with progress_bar(frames, "frames") if group.rank == 0 and videos else nullcontext() as bar:
        while queue:
            video = queue.popleft()
            folder, names = args.output / video.name, video.frames.names
            try:
                if args.overwrite or not _is_finished(video, args.output, settings):    # by another run, meanwhile
                    video.check()
                    before = Timer(timer.seconds, timer.frames)
                    with atomic_folder(folder, check_replaceable(folder, names, overwrite=True)) as partial:
                        masks = ((partial / f"{names[result.index]}.png", result.label_map, palette) for result in
                                 propagate(config.new_core(network), video, config, range(len(names)), timer))
                        for _ in map_in_threads(lambda mask: write_mask(*mask), masks, workers=1):
                            if bar:
                                bar.increment()
                        run = Run(device.type, group.world_size, timer.seconds - before.seconds,
                                  timer.frames - before.frames, peak_memory(device))
                        write_atomic(_settings_file(args.output, video),
                                     json.dumps({**settings, "run": run._asdict()}, indent=1))
            except LockedError:
                if video.name not in locked:
                    warn(f"{video.name}: another run is writing it; trying again later")
                locked.add(video.name)
                queue.append(video)
                time.sleep(1)
            except InputError as error:
                print(f"\nerror: {video.name}: {error}", file=sys.stderr, flush=True)
                failed.append(video.name)
    return failed


def _is_finished(video: Video, output: Path, settings: dict) -> bool:
    """Whether every frame from the first object on has a mask; raises InputError if other settings made them."""
    folder = output / video.name
    if not folder.is_dir():
        return False
    if not all((folder / f"{name}.png").is_file() for name in video.output_names()):
        return False
    path = _settings_file(output, video)
    before = json.loads(path.read_text()) if path.exists() else settings
    for name, value in settings.items():
        if before.get(name) != value:
            raise InputError(f"{folder}: was made with other settings ({name} was {before.get(name)}, is {value}); "
                             f"choose another --output, or --overwrite")
    return True


def _runs(output: Path, videos: list[Video]) -> list[Run]:
    """How the masks of videos were made, also by earlier runs; those of earlier versions do not tell."""
    files = [_settings_file(output, video) for video in videos]
    runs = [json.loads(path.read_text()).get("run") for path in files if path.exists()]
    return [Run(**run) for run in runs if run]


def _settings_file(output: Path, video: Video) -> Path:
    return output / ".settings" / f"{video.name}.json"


def run_settings(args: argparse.Namespace, config: PropagationConfig, device: torch.device) -> dict:
    """The settings that the masks depend on, with the CRC-32 of the weights file."""
    with open(args.model, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        settings = {"model": f"{zlib.crc32(content):08x}", **vars(config), "tf32": args.tf32 and device.type == "cuda"}
    del settings["workers"]             # does not change the masks
    return settings
