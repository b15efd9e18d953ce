"""Download the published weights to saves/, where all scripts find them.

  python download_model.py                   saves/propagation_model.pth
  python download_model.py --model s02       saves/propagation_model_s02.pth

They come from the authors' Google Drive, 215 MB each. An interrupted download resumes when you start it again.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import InputError, run
from util.download import Source, download, set_aside
from util.files import lock, prepare_folder

WEIGHTS = {
    "s012": Source("saves/propagation_model.pth", "19dfbVDndFkboGLHESi8DGtuxF1B21Nm8", 0.215),
    "s02": Source("saves/propagation_model_s02.pth", "12jw9b30o-mh23bXzsL0vp24UVhFko_Py", 0.215),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WEIGHTS, default="s012",
                        help="s012: trained in stages 0, 1 and 2; s02: without BL30K (default: %(default)s)")
    source = WEIGHTS[parser.parse_args().model]
    from model.checkpoint import load_network
    path = Path(source.path)
    prepare_folder(path.parent)
    with lock(path):
        download(source, Path())
        try:
            network = load_network(path)
        except InputError as error:
            raise set_aside(path, error) from error
    print(f"done: {path} ({network.variant} network)")


if __name__ == "__main__":
    run(main)
