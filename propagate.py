"""Find the objects of one or more masks in every other frame of your own clip.

  python propagate.py --video clip.mp4 --masks first_frame.png --output output/clip --overlay
  python propagate.py --images frames/ --masks masks/ --output output/clip --direction both

A mask is a PNG with one value per object (palette or grey, 0 is background), named after its frame: 00012.png goes
with 00012.jpg, or with frame 12 of a video file, counted from 0. Masks may be given on any frames: a new value is a
new object, a known value corrects that object from there on.

Writes DIR/<frame>.png, palette masks at the clip's size with the values given; with --overlay also
DIR/overlay/overlay.mp4 and DIR/overlay/contact_sheet.png.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from dataset.clip import open_clip
from inference.arguments import add_arguments
from inference.bidirectional import DIRECTIONS, frame_ranges, propagate_clip
from inference.overlay import write_overlay
from inference.propagation import PropagationConfig, Timer, load_for_propagation
from inference.results import check_output_is_not_input, check_replaceable
from util.cli import run, warn
from util.device import allow_tf32, pick_device
from util.files import atomic_folder, prepare_folder
from util.palette import davis_palette, palette_of
from util.progress import frames_bar

SIZE = 480                   # pixels of the shorter side, which suit the published weights


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", type=Path, metavar="FILE", help="the clip, a video file")
    source.add_argument("--images", type=Path, metavar="DIR", help="the clip, a folder of JPEG or PNG frames")
    parser.add_argument("--masks", type=Path, required=True, metavar="PATH",
                        help="one mask, or a folder of masks named after their frames; a single mask of another "
                             "name is the first frame's")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="where to write (default: output/<clip's name> in the current folder)")
    parser.add_argument("--direction", choices=DIRECTIONS, default="forward",
                        help="from each mask on, back from it, or both ways, where a frame takes the result of the "
                             "nearest mask (default: %(default)s)")
    parser.add_argument("--overlay", action="store_true",
                        help="also write a video and a contact sheet of the masks over the clip")
    parser.add_argument("--overwrite", action="store_true",
                        help="replace masks that are there already; refused if anything else is there")
    add_arguments(parser, SIZE)
    return parser.parse_args()


def main() -> None:
    args = parse()
    device = pick_device(args.device)
    allow_tf32(args.tf32)
    network = load_for_propagation(args.model, device)
    print(f"network: {network.variant} ({args.model})")
    video = open_clip(args.video, args.images, args.masks)
    output = (args.output or Path("output") / video.name).absolute()
    check_output_is_not_input(output, video)
    replaceable = check_replaceable(output, video.frames.names, args.overwrite)
    prepare_folder(output if output.is_dir() else output.parent)

    palette = palette_of(next(iter(video.masks.values()))) or davis_palette()
    clock, options = Timer(), PropagationConfig.from_args(args, network)
    forward, backward = frame_ranges(video, args.direction)
    left_out = len(video.frames.names) - len({*forward, *backward})
    if left_out:
        place = "before the first" if args.direction == "forward" else "after the last"
        warn(f"{left_out} frames {place} mask get none; --direction both fills them too")
    bar = frames_bar(len(forward) + len(backward))
    with atomic_folder(output, replaceable) as folder:
        propagate_clip(network, video, options, args.direction, folder, palette, clock, bar.increment)
        bar.finish()
        written = len(list(folder.glob("*.png")))
        if args.overlay:
            write_overlay(video, folder, palette, folder / "overlay")
    print(f"{written} of {len(video.frames.names)} frames have a mask now: {output}"
          f" ({clock.frames / clock.seconds:.2f} frames/s on {device})")
    if args.overlay:
        print(f"overlay: {output}/overlay/overlay.mp4\ncontact sheet: {output}/overlay/contact_sheet.png")


if __name__ == "__main__":
    run(main)
