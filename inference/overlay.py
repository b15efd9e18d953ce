"""Pictures of masks over their frames: a video, and a sheet of thumbnails."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataset.image_io import read_mask
from dataset.video import Video
from inference.results import OVERLAY_FILES
from util.cli import InputError
from util.opencv import cv2

THUMBNAIL_WIDTH, SHEET_COLUMNS, SHEET_ROWS = 320, 4, 3


def draw_overlay(frame: np.ndarray, mask: np.ndarray, palette: bytes) -> np.ndarray:
    """The frame (H, W, 3) with each object of the mask (H, W) tinted in its colour and outlined."""
    colours = np.frombuffer(palette, np.uint8).reshape(256, 3)
    objects = mask > 0
    picture = frame.copy()
    picture[objects] = (frame[objects] * 0.5 + colours[mask[objects]] * 0.5).astype(np.uint8)
    thickness = max(1, min(mask.shape) // 240)
    for label in np.unique(mask[objects]):
        outline, _ = cv2.findContours((mask == label).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        bright = colours[label].astype(int) + 128
        cv2.drawContours(picture, outline, -1, np.minimum(bright, 255).tolist(), thickness)
    return picture


def overlays(video: Video, masks: Path, palette: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """Every frame's name and picture; frames without a mask as they are."""
    names = video.frames.names
    for name, frame in zip(names, video.frames.read(range(len(names)), 1), strict=True):
        path = masks / f"{name}.png"
        yield name, draw_overlay(frame, read_mask(path), palette) if path.is_file() else frame


def write_overlay(video: Video, masks: Path, palette: bytes, folder: Path) -> None:
    """Write an overlay video and a contact sheet to the folder, in one pass over the frames."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(video.frames.names)
    chosen = set(np.linspace(0, count - 1, min(count, SHEET_COLUMNS * SHEET_ROWS)).round().astype(int).tolist())
    thumbnails, writer = [], None
    path, sheet = (folder / name for name in OVERLAY_FILES)
    for index, (name, picture) in enumerate(overlays(video, masks, palette)):
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2       # MPEG-4 wants even sides
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), video.frames.fps, (width, height))
            if not writer.isOpened():
                raise InputError(f"{path}: this OpenCV cannot write MPEG-4 video")
        writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
        if index in chosen:
            thumbnails.append((name, _thumbnail(picture)))
    writer.release()
    contact_sheet(thumbnails).save(sheet)


def contact_sheet(thumbnails: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Thumbnails of one size with their names, in rows."""
    width, height = thumbnails[0][1].size
    columns = min(SHEET_COLUMNS, len(thumbnails))
    sheet = Image.new("RGB", (columns * width, -(-len(thumbnails) // columns) * height))
    draw = ImageDraw.Draw(sheet)
    for place, (name, thumbnail) in enumerate(thumbnails):
        corner = place % columns * width, place // columns * height
        sheet.paste(thumbnail, corner)
        draw.text((corner[0] + 6, corner[1] + 4), name, fill="white", stroke_width=2, stroke_fill="black")
    return sheet


def _thumbnail(picture: np.ndarray) -> Image.Image:
    height = max(1, round(THUMBNAIL_WIDTH * picture.shape[0] / picture.shape[1]))
    return Image.fromarray(picture).resize((THUMBNAIL_WIDTH, height), Image.Resampling.BILINEAR)
