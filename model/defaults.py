"""Weights files and inference settings of the networks, without torch."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

STRIDE = 16                 # frame pixels per location of the features that are matched
KERNEL_SIGMA = 5.6          # of the published benchmarks, in stride-16 locations
PUBLISHED_WEIGHTS = Path("saves/propagation_model.pth")
LITE_WEIGHTS = Path(__file__).parent / "weights" / "lite.pth"


class InferenceDefaults(NamedTuple):
    """Inference settings that suit a network.

    Attributes:
        size: pixels of the shorter side to compute at; None: the script decides, as published.
        top_k: memory locations that each query location reads.
        kernel_sigma: standard deviation of kernelized reading in stride-16 locations; None: off.
        mem_every: every N-th frame becomes a memory frame.
        bfloat16: compute in bfloat16 on CPUs that do so natively; the scores are the same.
    """
    size: int | None
    top_k: int
    kernel_sigma: float | None
    mem_every: int
    bfloat16: bool


INFERENCE_DEFAULTS = {"published": InferenceDefaults(None, 50, None, 5, False),
                      "lite": InferenceDefaults(480, 16, 7.0, 3, True)}


def published_weights() -> Path | None:
    """The published weights file in ``saves/`` of the current folder or of the project; None if neither exists."""
    in_project = Path(__file__).resolve().parents[1] / PUBLISHED_WEIGHTS
    return next((path for path in (PUBLISHED_WEIGHTS, in_project) if path.exists()), None)


def default_weights() -> Path:
    """The published weights file if there is one, else the lite weights that come with the code."""
    return published_weights() or LITE_WEIGHTS
