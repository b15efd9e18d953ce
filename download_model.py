"""Download the published weights to saves/, where all scripts find them.

  python download_model.py                   saves/propagation_model.pth
  python download_model.py --model s02       saves/propagation_model_s02.pth

They come from their authors' Google Drive, 215 MB each. A download that was stopped goes on when run again.
"""
from __future__ import annotations

import argparse

from model.checkpoint import load_network
from model.defaults import PUBLISHED_WEIGHTS
from util.cli import InputError, run, warn
from util.download import fetch
from util.drive import Drive
from util.files import prepare_folder
from util.plan import amount, bytes_to_fetch
from util.sources import WEIGHTS


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WEIGHTS, default="s012",
                        help="s012: trained on static images, BL30K, and DAVIS with YouTubeVOS; s02: without BL30K "
                             "(default: %(default)s)")
    return parser.parse_args()


def main(drive: Drive | None = None) -> None:
    drive = drive or Drive()
    name, drive_id = WEIGHTS[parse().model]
    path = PUBLISHED_WEIGHTS.with_name(name)
    prepare_folder(path.parent)
    aside = path.with_name(f"{name}.damaged")
    if path.exists():
        try:
            load_network(path)
            print(f"{path}: is there already, and whole")
            return
        except InputError as error:
            path.replace(aside)
            warn(f"{error}; it is {aside} now")
    print(f"{path}: {amount(*bytes_to_fetch(drive, drive_id, path))}", flush=True)
    fetch(drive, drive_id, path)
    try:
        network = load_network(path)
    except InputError as error:
        path.replace(aside)
        raise InputError(f"{error}; it is {aside} now, run this again to download it anew") from None
    print(f"done: {path} ({network.variant} network)")


if __name__ == "__main__":
    run(main)
