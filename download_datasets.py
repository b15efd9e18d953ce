"""Download the data sets for training and benchmarks, and put them where the scripts expect them.

  python download_datasets.py                      everything, beside the project
  python download_datasets.py --only davis --yes   DAVIS, without asking

Makes static/, DAVIS/{2016,2017/trainval,2017/test-dev} and YouTube/{train,train_480p,valid,all_frames/valid_all_frames}
from archives on Google Drive, one after the other. What is there already is not downloaded again, and a run that was
stopped goes on when started again. An archive that you downloaded yourself is used if it is where it would be put.
"""
from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from PIL import Image

from dataset.resize import resize_folder
from util.cli import InputError, pluralize, run, warn
from util.drive import Drive
from util.files import prepare_folder
from util.plan import amount, bytes_to_fetch, confirm, one_after_the_other, room_needed
from util.provide import is_finished, provide
from util.sources import DATA_SETS, PARTS
from util.space import check_space, readable

SHORTER = 480       # pixels of train_480p


def parse() -> argparse.Namespace:
    names = sorted({part.data_set for part in PARTS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="default: all of them")
    parser.add_argument("--root", type=Path, default=Path(".."), metavar="DIR",
                        help="where the folders are made (default: %(default)s, beside the project)")
    parser.add_argument("--yes", action="store_true", help="do not ask before downloading")
    return parser.parse_args()


def resize_youtube(folder: Path) -> None:
    """Make ``train_480p`` of ``train``; it appears when it is whole.

    Raises:
        InputError: some pictures cannot be resized.
    """
    target, unfinished = folder / f"train_{SHORTER}p", folder / f".train_{SHORTER}p.partial"
    print(f"resizing {folder / 'train'} to {SHORTER} pixels on the shorter side", flush=True)
    failures = resize_folder(folder / "train", unfinished, SHORTER, Image.Resampling.BICUBIC, os.cpu_count())
    for failure in failures:
        warn(str(failure))
    if failures:
        raise InputError(f"{target}: not finished, {pluralize(len(failures), 'image')} could not be resized, see above")
    unfinished.rename(target)
    print(f"done: {target}", flush=True)


def main(drive: Drive | None = None) -> None:
    args, drive = parse(), drive or Drive()
    prepare_folder(args.root)
    chosen = [part for part in PARTS if part.data_set in args.only]
    missing = [part for part in chosen if not is_finished(part, args.root)]
    for part in set(chosen) - set(missing):
        if (args.root / part.archive).exists():
            warn(f"{args.root / part.archive}: is not needed any more, {args.root / part.folder} is there")
    if missing:
        sizes = [bytes_to_fetch(drive, part.drive_id, args.root / part.archive) for part in missing]
        for name in dict.fromkeys(part.data_set for part in missing):
            print(f"{DATA_SETS[name].name}\n  terms: {DATA_SETS[name].terms}")
            print(*(f"  cite: {citation}" for citation in DATA_SETS[name].citations), sep="\n")
            for part, size in zip(missing, sizes, strict=True):
                if part.data_set == name:
                    print(f"  {args.root / part.folder}: {amount(*size)}")
        needed = room_needed(sizes)
        unknown = sum(size is None for size, _ in sizes)
        print(f"room needed: at least {readable(needed)}"
              + (", and for YouTube/train_480p besides" if "youtube" in args.only else "")
              + (f"; {pluralize(unknown, 'size')} unknown" if unknown else ""), flush=True)
        check_space(args.root, needed, "what is to be downloaded")
        confirm(args.yes)
        one_after_the_other((part.folder, partial(provide, part, args.root, drive)) for part in missing)
    if "youtube" in args.only and not (args.root / "YouTube/train_480p").is_dir():
        resize_youtube(args.root / "YouTube")
    print(f"all there, in {args.root.resolve()}")


if __name__ == "__main__":
    run(main)
