"""Resize the pictures of a folder to 384 pixels on the shorter side, as for BIG and HRSOD in static training.

  python scripts/resize_length.py ../static/BIG ../static/BIG_small

Pictures by area, as JPEG; masks (.png) to the nearest pixel. Can be stopped and started again.
"""
from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.resize_youtube import main  # noqa: E402
from util.errors import run  # noqa: E402

if __name__ == "__main__":
    run(partial(main, __doc__, 384, Image.Resampling.BOX))
