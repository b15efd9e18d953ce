"""Draw a small clip, propagate its first masks through it, and say where the pictures are.

  python scripts/demo.py DIR

There is no trained model in the repository yet, so the weights are drawn at random: the demo shows that everything
runs, not what a trained network finds.
"""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from model.checkpoint import save_weights  # noqa: E402
from model.variants import published_network  # noqa: E402
from scripts.draw_clip import write_clip  # noqa: E402
from util.errors import run  # noqa: E402


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/demo")
    write_clip(folder / "clip", frames=16, height=240, width=320, objects=3, seed=0)
    torch.manual_seed(0)
    save_weights(published_network(), folder / "untrained.pth")
    print("This demo runs the published network with UNTRAINED weights: expect masks that mean nothing.\n"
          "With the published propagation_model.pth the same command gives real ones:\n", flush=True)
    command = ["propagate.py", "--images", folder / "clip/frames", "--masks", folder / "clip/masks/00000.png",
               "--model", folder / "untrained.pth", "--size", "-1", "--output", folder / "masks", "--overlay",
               "--overwrite"]
    print("  python", *command, "\n", flush=True)
    return subprocess.run([sys.executable, ROOT / command[0], *command[1:]], check=False).returncode


if __name__ == "__main__":
    run(main)
