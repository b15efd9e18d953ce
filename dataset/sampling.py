"""How far apart in time the frames of a training sample may be, as training goes on."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

SHORTEST, GROWING = 5, ((0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25))


def frame_distance(epoch: int, epochs: int, last_phase: float, files_every: int = 1) -> int:
    """The maximum distance of frames at an epoch, counted in files.

    Args:
        epochs: of the whole training.
        last_phase: from which share of the epochs on it is back at the shortest: 0.8 for BL30K, 0.9 otherwise.
        files_every: only every so many frames there is a file.
    """
    distance = max([SHORTEST, *(distance for share, distance in GROWING if epoch >= round(epochs * share))])
    if epoch >= round(epochs * last_phase):
        distance = SHORTEST
    return max(distance // files_every, 1)


def sample_frames(frames: int, distance: int, draw: Callable[[int, int], int], count: int = 3) -> list[int]:
    """Frames of a video in order of time, or reversed; near its end some may be the same.

    Args:
        frames: how many the video has, 3 at least.
        distance: see `frame_distance`.
        draw: a uniform integer between its arguments, both included.
        count: how many to choose; the published rule for three goes on in the same way.
    """
    reach = min(frames, distance)
    chosen = [draw(0, frames - reach)]
    for step in range(1, count):
        chosen.append(min(chosen[-1] + draw(1, reach + 1), frames - reach // step, frames - 1))
    return chosen[::-1] if draw(0, 1) else chosen


class BatchSchedule:
    """Which samples make up each batch of this process: a batch sampler that can begin at any iteration.

    Every epoch goes through the data in a new order, of which each process takes its share; what does not fill a
    batch of all processes is dropped. So N processes with batches of b see the samples of one with N b.

    Yields lists of (epoch, index): what is drawn for a sample depends on these and the seed alone, whatever worker
    makes it, and a resumed training goes on with the samples that it would have seen.

    Args:
        size: of the data set.
        batch: samples of a process.
        start, stop: iterations.
        rank, world: this process among all.
    """

    def __init__(self, size: int, batch: int, start: int, stop: int, seed: int, rank: int = 0, world: int = 1):
        self.size, self.batch, self.start, self.stop, self.seed = size, batch, start, stop, seed
        self.rank, self.world = rank, world
        self.per_epoch = size // (batch * world)
        if self.per_epoch == 0:
            raise ValueError(f"{size} samples do not fill a batch of {batch} in {world} processes")

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    @property
    def epochs(self) -> int:
        """Of the whole training."""
        return -(-self.stop // self.per_epoch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, order_of = None, None
        for iteration in range(self.start, self.stop):
            epoch, position = divmod(iteration, self.per_epoch)
            if order_of != epoch:
                generator = torch.Generator().manual_seed(self.seed + epoch)
                order, order_of = torch.randperm(self.size, generator=generator).tolist(), epoch
            first = (position * self.world + self.rank) * self.batch
            yield [(epoch, index) for index in order[first:first + self.batch]]
