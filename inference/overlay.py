"""Visualisation of masks over their frames: a video, and a contact sheet of thumbnails."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataset.image_io import read_mask
from dataset.video import Video
from dataset.video_reader import VideoFrames, opencv_path
from inference.results import OVERLAY_FILES
from util.cli import InputError
from util.opencv import cv2

THUMBNAIL_WIDTH, SHEET_COLUMNS, SHEET_ROWS = 320, 4, 3


def draw_overlay(frame: np.ndarray, mask: np.ndarray, palette: bytes) -> np.ndarray:
    """The frame (H, W, 3) with each object of the mask (H, W) tinted in its colour and outlined."""
    colours = np.frombuffer(palette, np.uint8).reshape(256, 3)
    objects = mask > 0
    overlay = frame.copy()
    overlay[objects] = (frame[objects] * 0.5 + colours[mask[objects]] * 0.5).astype(np.uint8)
    thickness = max(1, min(mask.shape) // 240)
    for label in np.unique(mask[objects]):
        outline, _ = cv2.findContours((mask == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        bright = colours[label].astype(int) + 128
        cv2.drawContours(overlay, outline, -1, np.minimum(bright, 255).tolist(), thickness)
    return overlay


def write_overlay(video: Video, masks: Path, palette: bytes, folder: Path,
                  on_frame: Callable[[], None] = lambda: None) -> None:
    """Write an overlay video and a contact sheet to ``folder``; frames without a mask are shown as they are.

    Args:
        on_frame: called for each frame.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, sheet = (folder / name for name in OVERLAY_FILES)
    names = video.frames.names
    chosen = np.linspace(0, len(names) - 1, min(len(names), SHEET_COLUMNS * SHEET_ROWS)).round().astype(int)
    fps = video.frames.fps
    fps = fps if fps < 65 else round(fps, 1)                # as a fraction, with 16 bits for its numerator
    thumbnails, writer, fourcc = [], cv2.VideoWriter(), cv2.VideoWriter_fourcc(*"mp4v")
    try:
        for index, frame in enumerate(video.frames.read(range(len(names)), 1)):
            mask = masks / f"{names[index]}.png"
            overlay = draw_overlay(frame, read_mask(mask), palette) if mask.is_file() else frame
            height, width = overlay.shape[0] // 2 * 2, overlay.shape[1] // 2 * 2       # MPEG-4 needs even sides
            if not index and not writer.open(opencv_path(path), fourcc, fps, (width, height)):
                raise InputError(f"{path}: this OpenCV cannot write MPEG-4 video")
            writer.write(np.ascontiguousarray(overlay[:height, :width, ::-1]))
            if index in chosen:
                thumbnails.append(thumbnail(overlay, names[index]))
            on_frame()
    finally:
        writer.release()
    try:                                       # OpenCV reports no write errors
        count = len(VideoFrames(path).names)
    except InputError:
        count = 0
    if count < len(names):
        raise InputError(f"{path}: only {count} of {len(names)} frames were written; is the disk full?")
    contact_sheet(thumbnails).save(sheet)


def thumbnail(image: np.ndarray, name: str) -> Image.Image:
    """The image (H, W, 3) at the width of a thumbnail, with a name in its upper left corner."""
    height = max(1, round(THUMBNAIL_WIDTH * image.shape[0] / image.shape[1]))
    result = Image.fromarray(image).resize((THUMBNAIL_WIDTH, height), Image.Resampling.BILINEAR)
    ImageDraw.Draw(result).text((6, 4), name, fill="white", stroke_width=2, stroke_fill="black")
    return result


def contact_sheet(thumbnails: Sequence[Image.Image]) -> Image.Image:
    """A sheet of thumbnails of one size, in rows."""
    width, height = thumbnails[0].size
    columns = min(SHEET_COLUMNS, len(thumbnails))
    sheet = Image.new("RGB", (columns * width, -(-len(thumbnails) // columns) * height))
    for position, image in enumerate(thumbnails):
        sheet.paste(image, (position % columns * width, position // columns * height))
    return sheet
