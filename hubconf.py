"""Entry points of `torch.hub.load`, one for each network; see docs/library.md."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:       # not at run time: torch.hub.list shows everything that can be called
    from collections.abc import Callable
    from os import PathLike

    from inference.stream import StreamCore

dependencies = ["torch", "numpy", "PIL", "cv2", "filelock", "progressbar"]


def lite(device: str | None = None, **options: int | float | bool | None) -> Callable[..., StreamCore]:
    """Load the lite network, and return a function that returns a new `StreamCore` for each video.

    Args:
        device: cpu, cuda, cuda:1, mps; None: CUDA if available, else MPS, else the CPU.
        options: of `StreamCore`, such as size, mem_every, max_memory_frames, top_k, kernel_sigma and amp. They can also
            be given to the returned function.

    Raises:
        InputError: the device is not available.
    """
    from model.defaults import LITE_WEIGHTS
    return _new_core(LITE_WEIGHTS, device, options)


def published(weights: str | PathLike | None = None, device: str | None = None,
              **options: int | float | bool | None) -> Callable[..., StreamCore]:
    """As `lite`, with the published weights or others.

    Args:
        weights: a state dict or a training checkpoint; None: ``saves/propagation_model.pth`` in the current folder or
            in that of this file.

    Raises:
        InputError: the weights file does not exist or cannot be used, or the device is not available.
    """
    from model.defaults import PUBLISHED_WEIGHTS, published_weights
    return _new_core(weights or published_weights() or PUBLISHED_WEIGHTS, device, options)


def _new_core(weights: str | PathLike, device: str | None, options: dict) -> Callable[..., StreamCore]:
    from functools import partial
    from pathlib import Path

    from inference.propagation import load_for_propagation
    from inference.stream import StreamCore
    from util.device import pick_device
    return partial(StreamCore, load_for_propagation(Path(weights), pick_device(device)), **options)
