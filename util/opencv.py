"""OpenCV, loaded in one place: ``from util.opencv import cv2``.

A fresh machine often lacks the system libraries that it wants. Scripts load it before `util.cli.run` has begun, so
the one line that says what to install, and exit code 2, come from here.
"""
from __future__ import annotations

import os
import sys

# Before OpenCV is loaded: what goes wrong with a file is said by us, in one line.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
try:
    import cv2
except ImportError as error:
    remedy = ("`pip install -r requirements.txt`" if isinstance(error, ModuleNotFoundError) else
              "`apt-get install libgl1 libglib2.0-0`, or `pip uninstall opencv-python` and `pip install "
              "opencv-python-headless`, which has no windows and wants fewer libraries")
    reason = str(error).strip().splitlines()[0]
    print(f"error: OpenCV cannot be loaded ({reason}); mend it with {remedy}", file=sys.stderr)
    raise SystemExit(2) from None

__all__ = ["cv2"]
