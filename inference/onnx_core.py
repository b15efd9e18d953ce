"""Propagation of masks with the ONNX files of scripts/export_onnx.py; needs NumPy and ONNX Runtime only."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

FILES = ("encode_query", "memorize", "readout", "segment")
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])        # of ImageNet


class OnnxCore:
    """Propagates the masks of the first frame of a video, as `InferenceCore` does.

    Args:
        folder: with the four ONNX files.
        mem_every: every N-th frame becomes a memory frame; the others are in memory for the next frame only. None: the
            network's default, which encode_query.onnx stores (5 if it does not).
        max_memory_frames: keep the first and the most recent memory frames, this many in total, at least 2; None: all.
        options: of the sessions, such as the number of threads.
        providers: of ONNX Runtime.

    Raises:
        ValueError: ``mem_every`` or ``max_memory_frames`` is too small.
    """

    def __init__(self, folder: Path | str, mem_every: int | None = None, max_memory_frames: int | None = None,
                 options: onnxruntime.SessionOptions | None = None, providers: Sequence = ("CPUExecutionProvider",)):
        import onnxruntime
        if (mem_every is not None and mem_every < 1) or (max_memory_frames is not None and max_memory_frames < 2):
            raise ValueError(f"mem_every is {mem_every}, max_memory_frames {max_memory_frames}: must be at least 1, 2")
        self.sessions = {name: onnxruntime.InferenceSession(Path(folder, f"{name}.onnx"), options, list(providers))
                         for name in FILES}
        self.size = tuple(self.sessions["encode_query"].get_inputs()[0].shape[2:])      # multiples of 16
        metadata = self.sessions["encode_query"].get_modelmeta().custom_metadata_map
        self.mem_every = mem_every or int(metadata.get("mem_every", 5))
        self.max_memory_frames = max_memory_frames
        self.memory: list[tuple[np.ndarray, np.ndarray]] = []       # keys and values of frames, see `_memorize`
        self.index = 0
        self.frame_size: tuple[int, int] | None = None
        self.latest: dict[str, np.ndarray] = {}                     # until it is memorised

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) uint8, RGB, of the size that was exported.
            mask: (H, W) integers, for the first frame of a video, which starts a new memory: 0 for the background, 1 to
                255 for objects.

        Returns:
            (H, W) uint8, the label of each pixel.

        Raises:
            ValueError: the frame or the mask has another size or type, the first frame has no mask, or the mask has no
                object.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame of {frame.dtype} {frame.shape}: it must be uint8 (H, W, 3), RGB")
        height, width = frame.shape[:2]
        down, across = self.size[0] - height, self.size[1] - width
        if not (0 <= down < 16 and 0 <= across < 16):
            raise ValueError(f"frame of {width}x{height} pixels: the files are for {self.size[1]}x{self.size[0]}")
        borders = (down // 2, down - down // 2), (across // 2, across - across // 2)
        image = np.pad((frame / np.float32(255) - MEAN) / STD, (*borders, (0, 0))).transpose(2, 0, 1)[None]
        if mask is None:
            if self.frame_size is None:
                raise ValueError("the first frame needs a mask")
            if self.frame_size != (height, width):
                raise ValueError(f"frame of {width}x{height} pixels: the frames before it have another size")
            if self.latest:
                self._memorize(**self.latest)
            query = self._run("encode_query", image=image)
            masks = self._run("segment", readouts=self._read(query["key"]), **query)["masks"][0]
        else:
            if mask.dtype.kind not in "iub" or mask.shape != (height, width) or mask.min() < 0 or mask.max() > 255:
                raise ValueError(f"mask of {mask.dtype} {mask.shape}: it must be integers from 0 to 255, of size "
                                 f"{(height, width)}")
            if not mask.any():
                raise ValueError("the mask has no object")
            query = self._run("encode_query", image=image)
            self.labels, self.memory, self.index, self.frame_size = np.setdiff1d(mask, 0), [], 0, (height, width)
            masks = np.pad(mask == self.labels[:, None, None], ((0, 0), *borders)).astype(np.float32)
        probabilities = aggregate(masks)
        self.latest = {"image": image, "masks": probabilities[None, 1:], **query}
        labels = np.array([0, *self.labels], np.uint8)[probabilities.argmax(0)]
        return labels[borders[0][0]:, borders[1][0]:][:height, :width]

    def _memorize(self, **latest: np.ndarray) -> None:
        """Store the latest frame as (key, value): (G, locations, channels), for G groups of objects that share keys."""
        encoded = self._run("memorize", **latest)
        if self.index and self.index % self.mem_every != 1 % self.mem_every:       # the frame before was temporary
            self.memory.pop()
        key = encoded.get("key", latest["key"])             # objects of lite share the key of the query
        self.memory.append(tuple(np.ascontiguousarray(rows.reshape(len(key), -1, rows[0, 0].size).swapaxes(1, 2))
                                 for rows in (key, encoded["value"])))
        if self.index % self.mem_every == 0 and len(self.memory) > (self.max_memory_frames or len(self.memory)):
            del self.memory[1]
        self.index, self.latest = self.index + 1, {}        # so that a step that fails later can be repeated

    def _read(self, query: np.ndarray) -> np.ndarray:
        """Return the readouts (1, K, C_v, h, w) of all objects."""
        keys, values = (np.concatenate(rows, 1) for rows in zip(*self.memory, strict=True))
        readouts = [self._run("readout", key=query, memory_key=key, memory_value=value)["readout"]
                    for key, value in zip(keys, values, strict=True)]
        return np.stack(readouts).reshape(1, len(self.labels), -1, *query.shape[2:])

    def _run(self, name: str, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        """Run a file on those of the tensors that it has as inputs, and return its outputs by name."""
        session = self.sessions[name]
        outputs = session.run(None, {node.name: tensors[node.name] for node in session.get_inputs()})
        return dict(zip((node.name for node in session.get_outputs()), outputs, strict=True))


def aggregate(masks: np.ndarray) -> np.ndarray:
    """Soft aggregation: independent probabilities (K, H, W) -> (K+1, H, W) that sum to 1, background first."""
    masks = np.concatenate([np.prod(1 - masks, 0, keepdims=True), masks]).clip(1e-7, 1 - 1e-7)
    odds = masks / (1 - masks)
    return odds / odds.sum(0)
