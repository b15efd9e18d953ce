"""Showing correspondences: the two views, and the windows in which they follow the mouse."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from inference.propagation import preprocess_frame
from model.corr_network import Correspondence
from model.network import PropagationNetwork
from util.opencv import cv2

SOURCE, TARGET = "Source", "Target"
RED = (255, 0, 0)
ESCAPE = 27
VIEW_FILES = ("source.png", "target.png")


def correspond(network: PropagationNetwork, source: np.ndarray, target: np.ndarray) -> Correspondence:
    """Of two pictures (H, W, 3) uint8."""
    device = next(network.parameters()).device
    return Correspondence(network, *(preprocess_frame(picture, device, picture.shape[:2]) for picture in (source, target)))


def draw_source(picture: np.ndarray, points: Sequence[tuple[int, int]]) -> np.ndarray:
    """The picture (H, W, 3) with the points (x, y) marked."""
    view = picture.copy()
    radius = max(3, min(picture.shape[:2]) // 80)
    for point in points:
        cv2.circle(view, point, radius, RED, -1, cv2.LINE_AA)
        cv2.circle(view, point, radius, (255, 255, 255), 1, cv2.LINE_AA)
    return view


def draw_target(picture: np.ndarray, heat: Tensor) -> np.ndarray:
    """The picture (H, W, 3), dimmed, with the heat map (H, W) over it in red."""
    share = heat.cpu().numpy()[..., None]
    return (picture * 0.5 * (1 - share) + np.array(RED) * share).astype(np.uint8)


def save_views(folder: Path, views: Sequence[np.ndarray]) -> None:
    """Write both views to the folder, as ``source.png`` and ``target.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in zip(VIEW_FILES, views, strict=True):
        partial = folder / f".{name}.partial"
        Image.fromarray(view).save(partial, format="PNG")
        partial.replace(folder / name)


def has_display() -> bool:
    """Whether windows can be opened. Tried in another process, which OpenCV ends where it cannot."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    trial = subprocess.run([sys.executable, "-c", "import cv2; cv2.namedWindow('x'); cv2.waitKey(1)"],
                           check=False, capture_output=True)
    return trial.returncode == 0


class CorrespondenceViewer:
    """The two windows. Left button: that point, also while dragging; with Shift or Ctrl held the points add up.

    Right button: source and target change places. ``s``: save both views. Esc, or closing a window: leave.

    Args:
        network: makes the correspondences.
        source, target: (H, W, 3) uint8 each.
        folder: where ``s`` saves.
    """

    def __init__(self, network: PropagationNetwork, source: np.ndarray, target: np.ndarray, folder: Path):
        self.network, self.source, self.target, self.folder = network, source, target, folder
        self.points: list[tuple[int, int]] = []
        self.correspondence = correspond(network, source, target)
        self.changed = True

    def views(self) -> tuple[np.ndarray, np.ndarray]:
        """What the windows show."""
        if not self.points:
            return self.source, (self.target * 0.5).astype(np.uint8)
        return (draw_source(self.source, self.points),
                draw_target(self.target, self.correspondence.heat_map(self.points)))

    def on_mouse(self, event: int, x: int, y: int, flags: int, _: object = None) -> None:
        """OpenCV calls this for the source window."""
        if event == cv2.EVENT_RBUTTONDOWN:
            self.source, self.target, self.points = self.target, self.source, []
            self.correspondence = correspond(self.network, self.source, self.target)
        elif event == cv2.EVENT_LBUTTONDOWN or event == cv2.EVENT_MOUSEMOVE and flags & cv2.EVENT_FLAG_LBUTTON:
            point = (min(max(x, 0), self.source.shape[1] - 1), min(max(y, 0), self.source.shape[0] - 1))
            paint = flags & (cv2.EVENT_FLAG_SHIFTKEY | cv2.EVENT_FLAG_CTRLKEY)
            self.points = [*self.points, point] if paint else [point]
        else:
            return
        self.changed = True

    def run(self) -> None:
        """Show the windows until the user leaves."""
        for name in (SOURCE, TARGET):
            cv2.namedWindow(name, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        cv2.moveWindow(SOURCE, 0, 0)
        cv2.moveWindow(TARGET, self.source.shape[1] + 20, 0)
        cv2.setMouseCallback(SOURCE, self.on_mouse)
        while True:
            if self.changed:
                self.changed = False
                for name, view in zip((SOURCE, TARGET), self.views(), strict=True):
                    cv2.imshow(name, np.ascontiguousarray(view[..., ::-1]))
            key = cv2.waitKey(20) & 0xFF
            if key == ord("s"):
                save_views(self.folder, self.views())
                print(f"saved: {self.folder}/{VIEW_FILES[0]}, {self.folder}/{VIEW_FILES[1]}", flush=True)
            closed = any(cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) < 1 for name in (SOURCE, TARGET))
            if key == ESCAPE or closed:
                break
        cv2.destroyAllWindows()
