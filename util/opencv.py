"""OpenCV, imported in one place: ``from util.opencv import cv2``; raises InputError if it cannot be loaded."""
from __future__ import annotations

import os

from util.cli import InputError, first_line, is_out_of_memory

# Set before the import: unreadable files are reported in one line by the code that reads them.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
try:
    import cv2
except ImportError as error:
    if is_out_of_memory(error):
        raise
    remedy = ("`pip install -r requirements.txt`" if isinstance(error, ModuleNotFoundError) else
              "`apt-get install libgl1 libglib2.0-0`, or `pip uninstall opencv-python` and `pip install "
              "opencv-python-headless`, which has no windows and needs fewer libraries")
    raise InputError(f"OpenCV cannot be loaded ({first_line(error)}); install it with {remedy}") from error

__all__ = ["cv2"]
