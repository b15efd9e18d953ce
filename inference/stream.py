"""Segmentation of a video stream: from uint8 frames to label maps."""
from __future__ import annotations

import numpy as np

from inference.propagation import default_amp, inference_size, preprocess_frame, resize_mask
from inference_core import InferenceCore, to_label_map
from model.defaults import INFERENCE_DEFAULTS, STRIDE
from model.network import PropagationNetwork


class StreamCore(InferenceCore):
    """An `InferenceCore` with the inference defaults of its network, which also takes uint8 frames.

    Args:
        network: its device is used.
        size: pixels of the shorter side at inference; None: the size of the frames.
        options: those of `InferenceCore`; by default, top_k, kernel_sigma, mem_every and amp are the network's.
    """

    def __init__(self, network: PropagationNetwork, size: int | None = 480, **options: int | float | bool | None):
        if size is not None and size < STRIDE:
            raise ValueError(f"size is {size}, but it must be at least {STRIDE}, or None for the size of the frames")
        defaults = INFERENCE_DEFAULTS[network.variant]
        super().__init__(network, **{"top_k": defaults.top_k, "kernel_sigma": defaults.kernel_sigma,
                                     "mem_every": defaults.mem_every, "amp": default_amp(network), **options})
        self.size = size

    def segment_frame(self, frame: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) uint8, RGB.
            mask: (H, W) integers, the input mask of an annotated frame: 0 for the background, 1 to 255 for objects.

        Returns:
            (H, W) uint8, the label of each pixel; 0 everywhere before the first mask.

        Raises:
            ValueError: as `step`, or the frame or the mask has another shape or type.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"frame of {frame.dtype} {frame.shape}: it must be uint8 (H, W, 3), RGB")
        height, width = frame.shape[:2]
        size, labels = inference_size(height, width, self.size), None
        if mask is not None:
            if mask.dtype.kind not in "iub" or mask.shape != (height, width) or mask.min() < 0 or mask.max() > 255:
                raise ValueError(f"mask of {mask.dtype} {mask.shape}: it must be integers from 0 to 255, of size "
                                 f"{(height, width)}")
            mask, labels = resize_mask(mask, size), np.setdiff1d(mask, 0).tolist()
        probabilities = self.step(preprocess_frame(frame, self.device, size), mask, labels)
        return to_label_map(probabilities, self.labels, (height, width)).cpu().numpy()
