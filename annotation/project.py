"""An annotation in its folder: input masks, names of objects, and the predictions of both passes, all on disk.

masks/<frame>.png                     input masks, as `propagate.py --masks` reads them
predictions/<direction>/<frame>.png   predicted masks; a text chunk says which input masks they depend on
objects.json                          names of the objects, and the clip's name and size
"""
from __future__ import annotations

import json
import os
import threading
import zlib
from bisect import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from annotation.frames import ClipFrames
from dataset.clip import find_masks
from dataset.image_io import MAX_OBJECTS, fit_mask, read_mask, write_mask
from dataset.video import Video
from inference.confidence import ObjectConfidence, is_doubtful
from inference.passes import forward_is_nearer, merge
from inference.results import SYSTEM_FILES
from util.cli import InputError, warn
from util.files import LOCK, atomic_file, write_atomic
from util.palette import davis_palette, palette_of

DIRECTIONS = ("forward", "backward")
MAX_NAME = 60
CHUNK = "mask-propagation"          # keyword of the text chunk in a predicted mask


class Result(NamedTuple):
    """What is known of a predicted mask without reading it.

    Attributes:
        depends: digest of the input masks and settings that the prediction depends on.
        labels: of the objects known to the pass at this frame.
        objects: one per label.
    """
    depends: str
    labels: list[int]
    objects: list[ObjectConfidence]


@dataclass(frozen=True)
class Pass:
    """One pass that the worker is asked for.

    Attributes:
        direction: forward or backward.
        video: with the input masks of the pass.
        indices: all frames of the pass.
        start: index of the first frame to write.
        depends: what the prediction depends on, for each of ``indices``.
        folder: for the predicted masks.
    """
    direction: str
    video: Video
    indices: range
    start: int
    depends: list[str]
    folder: Path
    palette: bytes


def write_prediction(path: Path, label_map: np.ndarray, palette: bytes, result: Result) -> None:
    """Write a predicted mask (H, W) uint8 with its result, atomically."""
    info = PngInfo()
    info.add_text(CHUNK, json.dumps(result))
    with atomic_file(path) as partial:
        write_mask(partial, label_map, palette, info)


def read_result(path: Path) -> Result | None:
    """The result in a predicted mask; None if the file is not one."""
    try:
        with Image.open(path) as image:
            depends, labels, objects = json.loads(image.info[CHUNK], parse_constant=int)
            image.fp.seek(-8, os.SEEK_END)
            if image.fp.read(4) != b"IEND":                     # cut off
                return None
            objects = [ObjectConfidence(int(label), int(area), float(confidence), float(boundary))
                       for label, area, confidence, boundary in objects]
            if not all(0 <= number <= 1 for figures in objects for number in figures[2:]):
                return None
            return Result(str(depends), [int(label) for label in labels], objects)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


class Project:
    """The state of an annotation. Every change is on disk before its method returns.

    Args:
        folder: of the annotation; empty, or one of the same clip.
        frames: of the clip.
        masks: input masks to start with, see `propagate.py --masks`; those in the folder take precedence. A mask that
            was removed in the page is not read again.
    """

    def __init__(self, folder: Path, frames: ClipFrames, masks: Path | None):
        self.folder, self.frames = folder, frames
        self.version = 1
        self._settings = ""                     # of the propagation; part of what predictions depend on
        self.lock = threading.RLock()
        self._changed: dict[int, int] = {}      # version of the latest change by frame
        self._digests: dict[int, int] = {}      # of the input masks
        self._labels: dict[int, list[int]] = {}
        self._results: dict[str, dict[int, Result]] = {direction: {} for direction in DIRECTIONS}
        self._dependencies: dict[str, tuple[list[int], list[str]]] = {}
        self._imported: dict[str, int] = {}     # checksums of the masks taken from ``masks``
        self.names: dict[int, str] = {}
        self.palette = davis_palette()
        self._read_objects()
        if any((folder / "masks").glob("*.png")):
            self._read_masks(folder / "masks", own=True)
        if masks is not None:
            self._read_masks(masks, own=False)
        self._read_predictions()
        self._masks_changed()
        self._save_objects(self.names)

    def _read_objects(self) -> None:
        """Read the names of the objects, and check that the folder belongs to the clip."""
        file = self.folder / "objects.json"
        if not file.exists():
            foreign = [path.name for path in self.folder.iterdir() if path.name not in {*SYSTEM_FILES, LOCK}]
            if foreign:
                raise InputError(f"{self.folder}: holds other files ({foreign[0]}); choose another --output")
            return
        try:
            content = json.loads(file.read_text())
            clip, digest = str(content["clip"]), content["digest"]
            names = {int(label): clean_name(name, int(label)) for label, name in content["objects"].items()}
            imported = content.get("imported")
            self._check_names(names)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
            file.replace(self.folder / "objects.json.damaged")
            warn(f"{file}: damaged, so the objects get new names; kept as objects.json.damaged")
            return
        if digest != self.frames.digest:
            raise InputError(f"{self.folder}: belongs to another clip ({clip}), or its frames have changed; choose "
                             f"another --output, and start with --masks {self.folder / 'masks'} if its masks fit")
        self.names, self._imported = names, imported if isinstance(imported, dict) else {}

    def _read_masks(self, source: Path, own: bool) -> None:
        """Read masks; those that are not the annotation's own become input masks of frames that have none."""
        # The number of frames that a video claims to have may be too small, or 0 as in a recording that was cut off.
        uncertain = own or (self.frames.numbered and not self.frames.reader.expected)
        count = self.frames.longest if uncertain else None
        masks = find_masks(self.frames.names, source, self.frames.numbered, count)
        self.frames.claimed = max(self.frames.claimed, *(index + 1 for index in masks))
        for index, path in masks.items():
            mask = read_mask(path, show_warnings=True)
            mask = fit_mask(path, mask, self.frames.height, self.frames.width).astype(np.uint8)
            if not self._digests:
                self.palette = palette_of(path) or self.palette
            if own:
                self._note_mask(index, mask)
                self.names = {label: clean_name("", label) for label in self._labels[index]} | self.names
                continue
            name, digest = self._name(index), zlib.crc32(np.ascontiguousarray(mask))
            if self._digests.get(index, digest) != digest:
                warn(f"{path}: {self.folder} has another mask of this frame, which is kept")
            elif index not in self._digests and self._imported.get(name) == digest:
                warn(f"{path}: not used, since this mask was removed in {self.folder}; to use it again, copy it to "
                     f"{self._mask_file(index)}")
            elif mask.any():
                if index not in self._digests:
                    self.save_mask(index, mask)
                self._imported[name] = digest

    def _read_predictions(self) -> None:
        for direction in DIRECTIONS:
            files = {path.stem: path for path in (self.folder / "predictions" / direction).glob("*.png")}
            if self.frames.numbered:
                indices = [int(stem) for stem in files if stem.isdecimal() and int(stem) < self.frames.longest]
                self.frames.claimed = max(self.frames.claimed, *(index + 1 for index in indices), 0)
            for index, name in enumerate(self.frames.names):
                result = read_result(files[name]) if name in files else None
                if result is not None:
                    self._results[direction][index] = result

    # ---- input masks ----

    @property
    def masks(self) -> dict[int, Path]:
        """The files of the input masks by the index of their frame."""
        with self.lock:
            return {index: self._mask_file(index) for index in sorted(self._digests)}

    def save_mask(self, index: int, mask: np.ndarray) -> None:
        """Make (H, W) uint8 labels the input mask of a frame. A mask without an object removes the input mask.

        Raises:
            InputError: more than 64 objects.
        """
        labels = np.unique(mask[mask > 0]).tolist()
        with self.lock:
            if len({*labels, *self.names}) > MAX_OBJECTS:
                raise InputError(f"there are more than {MAX_OBJECTS} objects")
            if labels:
                with atomic_file(self._mask_file(index)) as partial:
                    write_mask(partial, mask, self.palette)
                self._note_mask(index, mask)
            else:
                self._mask_file(index).unlink(missing_ok=True)
                self._digests.pop(index, None)
                self._labels.pop(index, None)
            self._masks_changed(index)
            if set(labels) - set(self.names):
                self.rename({**{label: clean_name("", label) for label in labels}, **self.names})

    def _note_mask(self, index: int, mask: np.ndarray) -> None:
        self._digests[index] = zlib.crc32(np.ascontiguousarray(mask))
        self._labels[index] = np.unique(mask[mask > 0]).tolist()

    def _mask_file(self, index: int) -> Path:
        return self.folder / "masks" / f"{self._name(index)}.png"

    def _name(self, index: int) -> str:
        """The name of a frame; videos number theirs, also those that they claim to have and have not."""
        return f"{index:05d}" if self.frames.numbered else self.frames.names[index]

    def rename(self, names: dict[int, str]) -> None:
        """Replace the names of the objects.

        Raises:
            InputError: an object of an input mask would have none, or there are more than 64.
        """
        with self.lock:
            for index, labels in self._labels.items():
                lost = set(labels) - set(names)
                if lost:
                    name = self.names.get(min(lost)) or clean_name("", min(lost))
                    raise InputError(f"{name} is in the mask of frame {index}; erase it there first")
            self._check_names(names)
            names = {label: clean_name(name, label) for label, name in sorted(names.items())}
            self._save_objects(names)
            self.names = names
            self._touch()

    @staticmethod
    def _check_names(names: dict[int, str]) -> None:
        if len(names) > MAX_OBJECTS or not all(0 < label < 256 for label in names):
            raise InputError(f"there can be {MAX_OBJECTS} objects, with labels from 1 to 255")

    def _save_objects(self, names: dict[int, str]) -> None:
        content = {"clip": self.frames.name, "digest": self.frames.digest,
                   "objects": {str(label): name for label, name in names.items()}, "imported": self._imported}
        write_atomic(self.folder / "objects.json", json.dumps(content, indent=1))

    def clip_scanned(self) -> None:
        """Put the masks of frames that a video turned out not to have into ``unused_masks``."""
        with self.lock:
            count = len(self.frames.names)
            for index in [index for index in self._digests if index >= count]:
                path, unused = self._mask_file(index), self.folder / "unused_masks"
                unused.mkdir(exist_ok=True)
                path.replace(unused / path.name)
                del self._digests[index], self._labels[index]
                if self._imported.pop(self._name(index), None) is not None:
                    self._save_objects(self.names)
            for known in (*self._results.values(), self._changed):
                for index in [index for index in known if index >= count]:
                    del known[index]
            self._masks_changed()

    # ---- predictions ----

    def set_settings(self, settings: str) -> None:
        """Set what predictions depend on besides the input masks."""
        with self.lock:
            self._settings = settings
            self._masks_changed()

    def _masks_changed(self, *indices: int) -> None:
        for direction in DIRECTIONS:
            order = sorted(self._digests, reverse=direction == "backward")
            digest, digests = zlib.crc32(self._settings.encode()), []
            for index in order:
                digest = zlib.crc32(f"{index}:{self._digests[index]}".encode(), digest)
                digests.append(f"{digest:08x}")
            self._dependencies[direction] = order, digests
        self._touch(*indices, *self._digests, *self._results["forward"], *self._results["backward"])

    def dependency(self, direction: str, index: int) -> str:
        """What the prediction of a frame depends on: a digest of the input masks before it in the pass and of the
        settings; empty if the pass has no such frame.
        """
        order, digests = self._dependencies[direction]
        if direction == "backward" and order[:1] == [0]:        # `frame_ranges` then has no backward pass
            return ""
        sign = 1 if direction == "forward" else -1
        position = bisect(order, sign * index, key=lambda other: sign * other)
        return digests[position - 1] if position else ""

    def prediction_file(self, direction: str, index: int) -> Path:
        return self.folder / "predictions" / direction / f"{self._name(index)}.png"

    def add_result(self, direction: str, index: int, result: Result) -> None:
        """Note a predicted mask that was written."""
        with self.lock:
            self._results[direction][index] = result
            self._touch(index, min(index + 1, len(self.frames.names) - 1))  # doubtful compares with the frame before

    def first_missing(self, direction: str, indices: range) -> int | None:
        """The first of the frames of a pass whose prediction does not exist or is stale; None if there is none."""
        with self.lock:
            results = self._results[direction]
            return next((index for index in indices if index not in results
                         or results[index].depends != self.dependency(direction, index)), None)

    def predicted(self, index: int) -> tuple[np.ndarray, list[int]] | None:
        """The predicted labels (H, W) uint8 of a frame, merged as by `propagate.py --direction both`, and the objects
        that the pass of the frame knows; None without a prediction.
        """
        with self.lock:
            found, maps = self._passes(index), []
            for direction in found:
                try:
                    maps.append(_read_labels(self.prediction_file(direction, index)))
                except InputError:
                    del self._results[direction][index]
                    self._touch(index)
                    raise
            if not found:
                return None
            labels = self._results[found[0]][index].labels
            return (maps[0] if len(found) == 1 else merge(maps[0], maps[1], labels)), labels

    def labels(self, index: int) -> np.ndarray:
        """The labels (H, W) uint8 to show: the input mask, with predicted objects that it does not annotate."""
        with self.lock:
            predicted = self.predicted(index)
            shown = np.zeros((self.frames.height, self.frames.width), np.uint8) if predicted is None else predicted[0]
            if index in self._digests:
                path = self._mask_file(index)
                mask = fit_mask(path, _read_labels(path), *shown.shape)
                shown = merge(mask, shown, self._labels[index])
            return shown

    def export_labels(self, index: int) -> np.ndarray | None:
        """The labels (H, W) uint8 that `propagate.py` writes for a frame; None if there are none.

        An input mask whose frame has not been propagated since is used as it is.
        """
        with self.lock:
            if index in self._digests and self.state(index) != "current":
                return self.labels(index)
            predicted = self.predicted(index)
            return predicted[0] if predicted else None

    def _passes(self, index: int) -> list[str]:
        """The passes that have a prediction of a frame; the one that takes precedence first."""
        found = [direction for direction in DIRECTIONS if index in self._results[direction]
                 and self.dependency(direction, index)]
        return found[::-1] if self._digests and not forward_is_nearer(self._digests, index) else found

    # ---- what the page shows ----

    def state(self, index: int) -> str:
        """``current`` if the predictions of a frame depend on the input masks as they are, else ``stale``, ``none``."""
        found = self._passes(index)
        current = all(self._results[direction][index].depends == self.dependency(direction, index)
                      for direction in found)
        return "none" if not found else "current" if current else "stale"

    def objects(self, index: int) -> list[ObjectConfidence]:
        """The figures of the predicted objects of a frame, each from the pass that its pixels come from."""
        merged: dict[int, ObjectConfidence] = {}
        for direction in self._passes(index):
            for figures in self._results[direction][index].objects:
                merged.setdefault(figures.label, figures)
        return list(merged.values())

    def records(self, since: int) -> list[dict]:
        """What the page shows of each frame that changed after a version."""
        with self.lock:
            return [self._record(index) for index, version in sorted(self._changed.items()) if version > since]

    def _record(self, index: int) -> dict:
        annotated, state, objects = index in self._digests, self.state(index), self.objects(index)
        doubtful = state != "none" and not annotated and is_doubtful(self.objects(index - 1) or None, objects)
        return {"frame": index, "annotated": annotated, "state": state, "doubtful": doubtful, "objects": objects}

    def _touch(self, *indices: int) -> None:
        self.version += 1
        self._changed.update(dict.fromkeys(indices, self.version))


def _read_labels(path: Path) -> np.ndarray:
    """The labels (H, W) uint8 of a palette PNG, without the checks of `read_mask`, which take longer."""
    try:
        with Image.open(path) as image:
            return np.array(image if image.mode == "P" else read_mask(path), np.uint8)
    except (OSError, SyntaxError, ValueError) as error:         # as Pillow raises them
        raise InputError(f"{path}: cannot be read") from error


def clean_name(name: str, label: int) -> str:
    """The name of an object without characters that cannot be shown, or a default one."""
    return "".join(character for character in name if character.isprintable()).strip()[:MAX_NAME] or f"object {label}"
