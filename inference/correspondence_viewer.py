"""Visualisation of correspondences: the two views, and windows in which they follow the mouse."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from inference.propagation import preprocess_frame
from model.corr_network import Correspondence
from model.network import PropagationNetwork
from util.files import atomic_file
from util.opencv import cv2

SOURCE, TARGET = "Source", "Target"
RED = (255, 0, 0)
ESCAPE = 27


def correspond(network: PropagationNetwork, source: np.ndarray, target: np.ndarray) -> Correspondence:
    """The correspondence of two images (H, W, 3) uint8."""
    device = next(network.parameters()).device
    return Correspondence(network, *(preprocess_frame(image, device, image.shape[:2]) for image in (source, target)))


def draw_source(image: np.ndarray, points: Sequence[tuple[int, int]]) -> np.ndarray:
    """The image (H, W, 3) with the points (x, y) marked."""
    view = image.copy()
    radius = max(3, min(image.shape[:2]) // 80)
    for point in points:
        cv2.circle(view, point, radius, RED, -1, cv2.LINE_AA)
        cv2.circle(view, point, radius, (255, 255, 255), 1, cv2.LINE_AA)
    return view


def draw_target(image: np.ndarray, heat: Tensor) -> np.ndarray:
    """The image (H, W, 3), dimmed, with the heat map (H, W) over it in red."""
    opacity = heat.cpu().numpy()[..., None]
    return (image * 0.5 * (1 - opacity) + np.array(RED) * opacity).astype(np.uint8)


def save_views(folder: Path, views: Sequence[np.ndarray]) -> list[Path]:
    """Write both views to the first free names of ``source.png`` and ``target.png``, ``source_2.png``, and so on."""
    for number in count(1):
        suffix = f"_{number}.png" if number > 1 else ".png"
        paths = [folder / f"source{suffix}", folder / f"target{suffix}"]
        if not any(map(os.path.lexists, paths)):
            break
    for path, view in zip(paths, views, strict=True):
        with atomic_file(path) as partial:
            Image.fromarray(view).save(partial, format="PNG")
    return paths


def has_display() -> bool:
    """Whether windows can be opened; tried in another process, because OpenCV aborts where they cannot."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    code = "import cv2; cv2.namedWindow('x'); cv2.waitKey(1)"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


class CorrespondenceViewer:
    """The windows of two images (H, W, 3) uint8; see try_correspondence.py. Views are saved in ``folder``."""

    def __init__(self, network: PropagationNetwork, source: np.ndarray, target: np.ndarray, folder: Path):
        self.network, self.folder = network, folder
        self.set_images(source, target)

    def set_images(self, source: np.ndarray, target: np.ndarray) -> None:
        """Compute the correspondence of two images and show them, without points."""
        self.source, self.target = source, target
        self.correspondence = correspond(self.network, source, target)
        self.points: list[tuple[int, int]] = []
        self.changed = True

    def views(self) -> tuple[np.ndarray, np.ndarray]:
        """The images that the windows show, (H, W, 3) uint8 RGB each."""
        if not self.points:
            return self.source, (self.target * 0.5).astype(np.uint8)
        return (draw_source(self.source, self.points),
                draw_target(self.target, self.correspondence.heat_map(self.points)))

    def on_mouse(self, event: int, x: int, y: int, flags: int, _: object = None) -> None:
        """OpenCV's mouse callback of the source window."""
        if event == cv2.EVENT_RBUTTONDOWN:
            self.set_images(self.target, self.source)
        elif event == cv2.EVENT_LBUTTONDOWN or event == cv2.EVENT_MOUSEMOVE and flags & cv2.EVENT_FLAG_LBUTTON:
            point = (min(max(x, 0), self.source.shape[1] - 1), min(max(y, 0), self.source.shape[0] - 1))
            add = flags & (cv2.EVENT_FLAG_SHIFTKEY | cv2.EVENT_FLAG_CTRLKEY)
            self.points = [*self.points, point] if add else [point]
            self.changed = True

    def run(self) -> None:
        """Show the windows until the user quits."""
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
                print("saved:", *save_views(self.folder, self.views()), flush=True)
            if key == ESCAPE or any(cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) < 1 for name in (SOURCE, TARGET)):
                break
        cv2.destroyAllWindows()
