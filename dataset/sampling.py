"""Training samples: their type, how the frames of a video are chosen, and the order of the batches."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing import NotRequired  # new in Python 3.11

MIN_DISTANCE, GROWTH = 5, ((0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25))      # from this fraction of the epochs on
ROLLOUT_MEMORY = 3


class TrainingSample(TypedDict):
    """One sample of T frames and K objects (1 in stage 0, else 2). A batch has a leading dimension B."""
    frames: Tensor          # (T, 3, H, W) float32, normalised
    masks: Tensor           # (K, H, W) float32, ground truth of the first frame, 0 to 1
    target: Tensor          # (T, H, W) int64, 0 background, 1..K
    selector: Tensor        # (K,) float32, 1 where the object exists
    skipped: list[str]      # error messages of the samples that this one replaces
    predicted: NotRequired[Tensor]      # (P, K, H, W) float32, predicted masks of frames 2 to P + 1 in memory


def max_frame_distance(epoch: int, epochs: int, last_phase: float, files_every: int = 1,
                       limit: int | None = None) -> int:
    """Return the maximum distance of consecutive frames of a sample at an epoch, counted in files.

    Args:
        epoch, epochs: of the whole training, from 0.
        last_phase: fraction of the epochs from which on the distance is minimal again: 0.8 for BL30K, else 0.9.
        files_every: distance in frames between the files.
        limit: in frames; None: none.
    """
    distance = max([MIN_DISTANCE, *(value for fraction, value in GROWTH if epoch >= round(epochs * fraction))])
    if epoch >= round(epochs * last_phase):
        distance = MIN_DISTANCE
    return max(min(distance, limit or distance) // files_every, 1)


def sample_frames(frames: int, max_distance: int, draw: Callable[[int, int], int], count: int = 3) -> list[int]:
    """Return frame indices in the order of time or reversed.

    Args:
        frames: of the video, at least 3.
        max_distance: see `max_frame_distance`.
        draw: returns a uniform integer between its arguments, both included.
        count: frames to choose, at least 2. Three are chosen by the published rule; near the end of the video, they
            can repeat. Otherwise, distances are reduced so that all frames fit into the video.
    """
    jump = min(frames, max_distance)
    if count == 3:
        chosen = [draw(0, frames - jump)]
        for step in (1, 2):
            chosen.append(min(chosen[-1] + draw(1, jump + 1), frames - jump // step, frames - 1))
    else:                       # by that rule, most samples of a short video would repeat frames
        longest = max(1, min(jump + 1, (frames - 1) // (count - 1)))
        steps = [draw(1, longest) for _ in range(count - 1)]
        start = draw(0, max(0, frames - 1 - sum(steps)))
        chosen = [min(position, frames - 1) for position in accumulate(steps, initial=start)]
    return chosen[::-1] if draw(0, 1) else chosen


def sample_rollout(frames: int, draw: Callable[[int, int], int], count: int) -> list[int]:
    """Return ascending frame indices: the first frame, `ROLLOUT_MEMORY` memory frames, and frames to segment.

    As at inference, the last memory frame is 1 to 3 frames before the first frame to segment, and the first frame may
    be far away. Memory frames can repeat at the start of the video.

    Args:
        frames: of the video, at least `shortest_rollout(count)`.
        draw: see `sample_frames`.
        count: frames to segment, 1 to 3 frames apart.
    """
    steps = [draw(1, 3) for _ in range(count - 1)]
    start = draw(4, frames - 1 - sum(steps))
    last = start - draw(1, 3)
    before = max(1, last - draw(3, 6))
    return [0, draw(1, max(1, before - 1)), before, last, *accumulate(steps, initial=start)]


def shortest_rollout(count: int) -> int:
    """Return the frames that a video needs for `sample_rollout`."""
    return 5 + 3 * (count - 1)


def batch_schedule(size: int, batch: int, start: int, stop: int, seed: int, rank: int = 0,
                   world_size: int = 1) -> Iterator[list[tuple[int, int]]]:
    """Yield the batches of one process, from any iteration on, as lists of (epoch, index).

    Each epoch is a new permutation of the data, split among the processes; an incomplete last batch is dropped. N
    processes with batches of b see the samples of one process with batches of N b. The random draws for a sample
    depend only on (epoch, index) and the seed, so a resumed run sees the same samples as an uninterrupted one.

    Args:
        size: samples in the data set, at least one batch of all processes.
        batch: samples per process.
        start, stop: iterations.
    """
    order_of = None
    for iteration in range(start, stop):
        epoch, position = divmod(iteration, size // (batch * world_size))
        if order_of != epoch:
            generator = torch.Generator().manual_seed(seed + epoch)
            order, order_of = torch.randperm(size, generator=generator).tolist(), epoch
        first = (position * world_size + rank) * batch
        yield [(epoch, index) for index in order[first:first + batch]]
