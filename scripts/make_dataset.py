"""Make synthetic training data in the layouts of static, BL30K, DAVIS and YouTubeVOS, for every training stage.

  python -m scripts.make_dataset DIR [--images 200] [--videos 40] [--frames 24] [--height 240] [--seed 0]

Cut-out objects move over photographs: smooth paths, rotation, growth, elastic deformation, occlusion by each other and
by unlabelled objects, smoke, a moving and zooming camera, changing light, blur and noise. The masks are exact.

The default sources are those of these free Debian packages that are installed: tuxpaint-stamps-default (cut-outs with
alpha); plasma-workspace-wallpapers, gnome-backgrounds, mate-backgrounds, lomiri-wallpapers-16.04,
lomiri-wallpapers-20.04 and ukui-wallpapers (photographs). --cutouts and --photos name other folders. Without any,
shapes and textures are drawn.

--annotated and --parts name folders of photographs with masks: DIR/images, and palette PNGs of the same names in
DIR/masks. Their objects are cut out; the photographs also serve as backgrounds, except for their own objects.
--davis_root adds the training videos of DAVIS: the objects of a video are cut out of consecutive frames as one object,
and some of the videos are the scene in which other objects move.

Train with --static_root DIR/static --bl_root DIR/BL30K --davis_root DIR/DAVIS --yv_root DIR/YouTube. The same seed and
sources make the same data. Existing files of the same settings are kept; a folder with other settings is refused.
"""
from __future__ import annotations

import argparse
import json
import os
import zlib
from functools import partial
from pathlib import Path

from util.cli import InputError, at_least, pluralize, positive_int, run

PHOTOS = [path for path in map(Path, ("/usr/share/wallpapers", "/usr/share/backgrounds")) if path.is_dir()]
CUTOUTS = [path for path in [Path("/usr/share/tuxpaint/stamps")] if path.is_dir()]
STATIC_FOLDERS = ("fss/class0", "fss/class1", "DUTS-TR", "DUTS-TE", "ecssd", "BIG_small", "HRSOD_small")
DAVIS = "DAVIS/2017/trainval"
# Folders of frames and masks; distance between the numbers of frames.
VIDEO_KINDS = {"bl": ("BL30K/JPEGImages", "BL30K/Annotations", 1),
               "davis": (f"{DAVIS}/JPEGImages/480p", f"{DAVIS}/Annotations/480p", 1),
               "yv": ("YouTube/train_480p/JPEGImages", "YouTube/train_480p/Annotations", 5)}


def make_jobs(args: argparse.Namespace, videos: list[list[tuple[Path, Path]]]) -> list[partial]:
    """All images and videos to make, as functions without arguments; ``videos``: see `dataset.cutouts.Sources`."""
    from dataset.composed import write_image, write_video
    from dataset.cutouts import Sources, find_images
    from dataset.image_io import IMAGE_SUFFIXES
    annotated = [folder / "images" for folder in (*args.annotated, *args.parts)]
    sources = Sources(find_images([*args.photos, *annotated], IMAGE_SUFFIXES),
                      find_images([*args.cutouts, args.folder / "cutouts"], {".png"}), videos)
    counted = zip(sources, ("photograph", "cut-out", "video"), strict=True)
    drawn = "" if sources.photographs and sources.cutouts else "; the rest is drawn"
    print(f"sources: {', '.join(pluralize(len(files), word) for files, word in counted)}{drawn}", flush=True)

    jobs = []
    for index in range(args.images if "static" in args.kinds else 0):
        name = f"{STATIC_FOLDERS[index % len(STATIC_FOLDERS)]}/{index:05d}.jpg"
        seed = args.seed, zlib.crc32(name.encode())
        jobs.append(partial(write_image, args.folder / "static" / name, seed, sources, args.height))
    for kind, (images, masks, every) in VIDEO_KINDS.items():
        for index in range(args.videos if kind in args.kinds else 0):
            name = f"{kind}{index:04d}"
            seed = args.seed, zlib.crc32(name.encode())
            jobs.append(partial(write_video, args.folder / images / name, args.folder / masks / name, seed, sources,
                                args.frames, args.height, every))
    return jobs


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder")
    parser.add_argument("--kinds", nargs="+", choices=["static", *VIDEO_KINDS], default=["static", *VIDEO_KINDS],
                        help="static images, BL30K, DAVIS, YouTubeVOS (default: all)")
    for name, default, smallest, what in (
            ("images", 200, 1, "number of static images"), ("videos", 40, 1, "number of videos of each kind"),
            ("frames", 24, 3, "annotated frames per video"), ("height", 240, 32, "height of the frames in pixels"),
            ("seed", 0, 0, "random seed")):
        parser.add_argument(f"--{name}", type=at_least(smallest), default=default, metavar="N",
                            help=f"{what} (default: %(default)s)")
    for name, default, what in (("photos", PHOTOS, "folders of photographs (default: those of the packages)"),
                                ("cutouts", CUTOUTS, "folders of PNGs with alpha (default: those of the package)"),
                                ("annotated", [], "annotated photographs, one mask value per object"),
                                ("parts", [], "annotated photographs of one object each, one mask value per part")):
        parser.add_argument(f"--{name}", nargs="*", type=Path, default=default, metavar="DIR", help=what)
    parser.add_argument("--davis_root", type=Path, metavar="DIR",
                        help="DAVIS folder, which contains 2017: its training videos with their objects")
    parser.add_argument("--workers", type=positive_int, default=os.cpu_count(), metavar="N",
                        help="processes (default: all cores, %(default)s)")
    args = parser.parse_args()
    for folder in (*args.photos, *args.cutouts, *args.annotated, *args.parts):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    return args


def main() -> None:
    args = parse()
    from dataset.cutouts import cut_out_objects
    from dataset.stages import davis_training_videos
    from util.files import prepare_folder, write_atomic
    from util.parallel import run_jobs
    videos = davis_training_videos(args.davis_root) if args.davis_root else []
    prepare_folder(args.folder)
    names = ["seed", "frames", "height", "photos", "cutouts", "annotated", "parts", *["davis_root"] * bool(videos)]
    settings = json.dumps({name: getattr(args, name) for name in names}, default=str)
    path = args.folder / "settings.json"
    if path.exists() and path.read_text() != settings:
        raise InputError(f"{args.folder}: contains data made with other settings ({path.read_text()}); use the same "
                         f"flags to resume, or another folder")
    write_atomic(path, settings)
    cut_outs = [(args.folder / f"cutouts/{number}", folder, number >= len(args.annotated))
                for number, folder in enumerate(args.annotated + args.parts)]
    failures = run_jobs([partial(cut_out_objects, folder, target, parts)
                         for target, folder, parts in cut_outs if not target.exists()], args.workers, "folders")
    if not failures:
        failures = run_jobs(make_jobs(args, videos), args.workers, "images and videos")
    if failures:
        raise failures[0]
    if "davis" in args.kinds:
        for split in ("train", "val"):
            write_atomic(args.folder / DAVIS / f"ImageSets/2017/{split}.txt",
                         "".join(f"davis{index:04d}\n" for index in range(args.videos)))
    print(f"done: {args.folder}")


if __name__ == "__main__":
    run(main)
