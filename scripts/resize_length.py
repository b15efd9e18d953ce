"""Resize the pictures of a folder to 384 pixels on the shorter side, as for BIG and HRSOD in static training.

  python -m scripts.resize_length ../static/BIG ../static/BIG_small

Pictures by area, as JPEG; masks (.png) to the nearest pixel. Can be stopped and started again.
"""
from __future__ import annotations

from functools import partial

from PIL import Image

from scripts.resize_youtube import main
from util.cli import run

if __name__ == "__main__":
    run(partial(main, __doc__, 384, Image.Resampling.BOX))
