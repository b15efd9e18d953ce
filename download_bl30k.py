"""Download BL30K, the rendered videos of training stage 1: six segments of 115 GB, about 700 GB in all.

  python download_bl30k.py                      everything, into ../BL30K; have 1 TB free
  python download_bl30k.py --only a b --yes     two segments, without asking

A segment is downloaded, unpacked among the others and its archive removed before the next begins. Finished segments
are remembered, and a run that was stopped goes on when started again.
"""
from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from util.cli import pluralize, run
from util.drive import Drive
from util.files import prepare_folder
from util.plan import confirm, one_after_the_other, room_needed
from util.segments import bytes_left, is_finished, provide
from util.sources import DATA_SETS, SEGMENTS
from util.space import check_space, readable


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SEGMENTS, nargs="+", default=list(SEGMENTS),
                        help="segments (default: all six)")
    parser.add_argument("--root", type=Path, default=Path(".."), metavar="DIR",
                        help="where BL30K/ is made (default: %(default)s, beside the project)")
    parser.add_argument("--yes", action="store_true", help="do not ask before downloading")
    return parser.parse_args()


def main(drive: Drive | None = None) -> None:
    args, drive = parse(), drive or Drive()
    prepare_folder(args.root)
    missing = [segment for segment in SEGMENTS if segment in args.only and not is_finished(segment, args.root)]
    if missing:
        sizes = [bytes_left(segment, args.root, drive) for segment in missing]
        about, needed = DATA_SETS["bl30k"], room_needed(sizes)
        print(f"{about.name}\n  terms: {about.terms}")
        print(*(f"  cite: {citation}" for citation in about.citations), sep="\n")
        print(f"  {args.root / 'BL30K'}: {pluralize(len(missing), 'segment')} ({' '.join(missing)}), "
              f"{readable(sum(size - here for size, here in sizes))} to download\n"
              f"room needed: at least {readable(needed)}", flush=True)
        check_space(args.root, needed, "what is to be downloaded")
        confirm(args.yes)
        one_after_the_other((f"BL30K_{segment}", partial(provide, segment, args.root, drive)) for segment in missing)
    print(f"all there, in {(args.root / 'BL30K').resolve()}")


if __name__ == "__main__":
    run(main)
