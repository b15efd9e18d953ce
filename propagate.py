"""Segment the objects of one or more masks in all other frames of your own clip.

  python propagate.py --video clip.mp4 --masks first_frame.png --output output/clip --overlay
  python propagate.py --images frames/ --masks masks/ --output output/clip --direction both

A mask is a PNG with one value per object (palette or grey, 0 is background), named after its frame: 00012.png belongs
to 00012.jpg, or to frame 12 of a video file, counted from 0. Any frame may have a mask: a new value is a new object, a
known value corrects that object from this frame on.

Output: DIR/<frame>.png, palette PNGs at the clip's resolution with your label values; with --overlay also
DIR/overlay/overlay.mp4 and DIR/overlay/contact_sheet.png; with --confidence also DIR/confidence/confidence.csv and
DIR/confidence/confidence.png. With --ground_truth, J and F are printed; with --report also DIR/report/report.html and
DIR/report/scores.csv.
"""
from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path

from inference.arguments import add_arguments
from util.cli import InputError, Interrupted, first_line, run, user_message, warn


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", type=Path, metavar="FILE", help="the clip as a video file")
    source.add_argument("--images", type=Path, metavar="DIR", help="the clip as a folder of images")
    parser.add_argument("--masks", type=Path, required=True, metavar="PATH",
                        help="a mask, or a folder of masks named after their frames; a single mask whose name does not "
                             "look like that of a frame belongs to the first one")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="output folder (default: output/<name of the clip> in the current folder)")
    parser.add_argument("--direction", choices=["forward", "backward", "both"], default="forward",
                        help="propagate forward from the first mask, backward from the last one, or both; with both, "
                             "each frame gets the result of its nearest mask (default: %(default)s)")
    parser.add_argument("--overlay", action="store_true",
                        help="also write a video and a contact sheet that show the masks over the clip")
    parser.add_argument("--confidence", action="store_true",
                        help="also write the area and confidence of each object on each frame, as CSV and as a plot")
    parser.add_argument("--ground_truth", "--truth", type=Path, metavar="DIR",
                        help="folder of ground-truth masks named after their frames, to score the result with")
    parser.add_argument("--report", action="store_true",
                        help="with --ground_truth: also write J and F over time, best and worst frames and settings as "
                             "a page, and the scores as CSV")
    parser.add_argument("--baseline", type=Path, metavar="FILE",
                        help="with --ground_truth: scores.csv of an earlier run to compare the scores with")
    parser.add_argument("--overwrite", action="store_true",
                        help="replace the masks of an earlier run; refused if the folder contains anything else")
    add_arguments(parser, size=480)
    return parser.parse_args()


def main() -> None:
    args = parse()
    from dataset.clip import open_clip, with_ground_truth
    from dataset.video_reader import opencv_path
    from inference.bidirectional import propagate_clip
    from inference.evaluation import run_settings
    from inference.overlay import write_overlay
    from inference.passes import frame_ranges
    from inference.propagation import PropagationConfig, Run, Timer, load_for_propagation
    from inference.results import REPORT_FILES, check_output_is_not_input, check_replaceable
    from inference.scoring import read_csv, score_video, table, write_csv
    from util.device import allow_tf32, peak_memory, pick_device
    from util.files import atomic_folder, prepare_folder
    from util.palette import davis_palette, palette_of
    from util.progress import progress_bar
    if args.confidence:
        from inference.confidence_report import write_confidence  # raises an error if matplotlib is missing
    if (args.report or args.baseline) and not args.ground_truth:
        raise InputError("--report and --baseline need the scores; add --ground_truth")
    if args.report:
        from inference.report import settings_rows, speed_and_memory, write_report  # raises an error likewise

    baseline = read_csv(args.baseline) if args.baseline else None
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    network = load_for_propagation(args.model, device)
    print(f"network: {network.variant} ({args.model})")
    video = open_clip(args.video, args.images, args.masks)
    if args.ground_truth:
        video = with_ground_truth(video, args.ground_truth)
    output = (args.output or Path("output") / video.name).absolute()
    check_output_is_not_input(output, video)
    replaceable = check_replaceable(output, video.frames.names, args.overwrite)
    if args.overlay:
        opencv_path(output)          # raises an error before the work starts
    prepare_folder(output if output.is_dir() else output.parent)

    palette = palette_of(*video.masks.values()) or davis_palette()
    config = PropagationConfig.from_args(args, network)
    timer, errors, scores = Timer(), {}, []
    forward, backward = frame_ranges(video, args.direction)
    total, written = len(video.frames.names), len({*forward, *backward})
    if written < total:
        place = "before the first" if args.direction == "forward" else "after the last"
        warn(f"{total - written} frames {place} mask get none; use --direction both to include them")
    with atomic_folder(output, replaceable) as folder:
        with progress_bar(len(forward) + len(backward), "frames") as bar:
            confidences = propagate_clip(network, video, config, args.direction, folder, palette, timer, bar.increment,
                                         args.confidence)
        made, failure = Run(device.type, 1, timer.seconds, timer.frames, peak_memory(device)), None
        extras = {}
        if args.overlay:
            extras["overlay"] = partial(write_overlay, video, folder, palette)
        if args.confidence:
            extras["confidence"] = partial(write_confidence, confidences, video, palette)
        if args.ground_truth:
            extras["score table"] = lambda _: scores.extend(score_video(video, folder, args.direction))
        if args.report:
            def write_scores(place: Path) -> None:
                page, csv = (place / name for name in REPORT_FILES)
                settings = run_settings(args, config, device)
                if scores:
                    write_csv(scores, csv, network.variant, settings["model"])
                write_report(page, f"propagate: {output.name}", [(video, folder)], scores,
                             speed_and_memory([made]), settings_rows(network, args.model, settings) |
                             {"direction": args.direction, "baseline": args.baseline}, baseline, errors.values())
            extras["report"] = write_scores
        for name, write in extras.items():
            try:
                write(folder / name)
            except (Exception, Interrupted) as error:           # the masks are kept
                shutil.rmtree(folder / name, ignore_errors=True)
                failure = error
                if isinstance(error, Interrupted):
                    break
                message = (user_message(error) or first_line(error)).replace(str(folder), str(output))
                errors[name] = f"the masks are complete, but the {name} was not written: {message}"
    if isinstance(failure, Interrupted):
        raise failure
    speed = timer.frames / timer.seconds
    print(f"{written} of {total} frames have a mask: {output} ({speed:.2f} frames/s on {device})")
    if args.overlay and "overlay" not in errors:
        print(f"overlay: {output}/overlay/overlay.mp4\ncontact sheet: {output}/overlay/contact_sheet.png")
    if args.confidence and "confidence" not in errors:
        print(f"confidence: {output}/confidence/confidence.csv\nplot: {output}/confidence/confidence.png")
    if args.ground_truth and "score table" not in errors:
        print(table(scores, baseline) if scores else
              "No scores: no object has ground truth on a frame after its first mask.")
    if args.report and "report" not in errors:
        print(f"report: {output}/report/{REPORT_FILES[0]}")
    if errors:
        raise InputError("; ".join(errors.values())) from failure


if __name__ == "__main__":
    run(main)
