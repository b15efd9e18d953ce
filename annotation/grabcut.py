"""The mask of an object from a box or a few scribbles, by GrabCut (Rother et al., SIGGRAPH 2004) of OpenCV."""
from __future__ import annotations

import numpy as np

from util.cli import InputError
from util.opencv import cv2

UNKNOWN, OBJECT, BACKGROUND = range(3)          # hints
MAX_SIDE = 480              # pixels of the larger side of the part of the frame that is segmented
CONTEXT = 0.35              # of the box, on each side
ITERATIONS = 5


def grabcut(frame: np.ndarray, hints: np.ndarray, box: tuple[int, int, int, int] | None) -> np.ndarray:
    """Segment one object.

    Args:
        frame: (H, W, 3) uint8 RGB.
        hints: (H, W) uint8, UNKNOWN, OBJECT or BACKGROUND.
        box: x0, y0, x1, y1 in pixels, exclusive at the end; the object is in it. None: anywhere in the frame.

    Returns:
        (H, W) uint8, 1 for the object.

    Raises:
        InputError: the box is empty, or there is neither a box nor a hint at the object.
    """
    height, width = frame.shape[:2]
    if box is None and not (hints == OBJECT).any():
        raise InputError("draw a box around the object, or a stroke on it")
    x0, y0, x1, y1 = box or (0, 0, width, height)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise InputError("the box is too small")
    margin_x, margin_y = int((x1 - x0) * CONTEXT) + 4, int((y1 - y0) * CONTEXT) + 4
    left, top = max(0, x0 - margin_x), max(0, y0 - margin_y)
    part = np.s_[top:min(height, y1 + margin_y), left:min(width, x1 + margin_x)]

    trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
    trimap[y0:y1, x0:x1] = cv2.GC_PR_FGD if box else cv2.GC_PR_BGD
    trimap[hints == OBJECT], trimap[hints == BACKGROUND] = cv2.GC_FGD, cv2.GC_BGD
    rows, columns = trimap[part].shape
    factor = min(1.0, MAX_SIDE / max(rows, columns))
    size = max(2, round(columns * factor)), max(2, round(rows * factor))
    image = cv2.resize(np.ascontiguousarray(frame[part]), size, interpolation=cv2.INTER_AREA)
    small = _shrink_trimap(trimap[part], size)
    if (small % 2 == 0).all():                  # everything is background: the box covers less than a pixel
        raise InputError("the box is too small")
    cv2.setRNGSeed(0)
    if (small % 2 == 1).all():                  # the box is the whole frame: its border serves as background
        small[[0, -1]], small[:, [0, -1]] = cv2.GC_BGD, cv2.GC_BGD
    cv2.grabCut(image, small, None, np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = cv2.resize((small % 2).astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR) > 0.5
    mask = np.zeros((height, width), np.uint8)
    mask[part] = found
    mask[trimap == cv2.GC_BGD] = 0
    mask[hints == OBJECT] = 1
    return mask


def _shrink_trimap(trimap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The trimap at a smaller size, in which thin strokes are kept."""
    small = cv2.resize(trimap, size, interpolation=cv2.INTER_NEAREST)
    for hint in (cv2.GC_BGD, cv2.GC_FGD):
        share = cv2.resize((trimap == hint).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        small[share > (0.2 if hint == cv2.GC_FGD else 0.5)] = hint
    return small
