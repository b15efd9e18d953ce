"""Resize the images of a folder to 384 pixels on the shorter side, as for BIG and HRSOD in static training.

  python -m scripts.resize_length ../static/BIG ../static/BIG_small

Images are resized by area averaging and written as JPEG, masks (.png) by nearest neighbour. An interrupted run resumes
when you start it again.
"""
from __future__ import annotations

from functools import partial

from scripts.resize_youtube import main
from util.cli import run

if __name__ == "__main__":
    run(partial(main, __doc__, 384, "BOX"))
