"""Propagation of masks through a video, frame by frame."""
from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.aggregate import aggregate
from model.defaults import STRIDE
from model.memory_bank import MemoryBank
from model.memory_reader import read
from model.network import PropagationNetwork, Query
from model.padding import crop, padding


class _Unmemorized(NamedTuple):
    """The latest frame, which enters the memory only if another frame follows."""
    image: Tensor           # (3, H, W), padded
    probabilities: Tensor   # (K+1, H, W), padded
    query: Query | None     # if memorizing can use it
    permanent: bool


class _Group(NamedTuple):
    """Objects that are remembered together: one, or all that were given on the same frame if they share keys."""
    size: int
    bank: MemoryBank


class InferenceCore:
    """Propagates the masks of any number of objects through one video given as a stream.

    One core is one video: the frames go in one by one, in order (forward or backward in time), and objects may
    be given on any of them. It holds the memory bank and the latest frame, nothing else that grows.

    Args:
        network: its device is the core's.
        top_k: of a location's affinities only the k largest count; None: all of them.
        kernel_sigma: kernelized memory reading with this standard deviation in stride-16 cells; None: off.
        mem_every: every so many frames, counted from the last permanent one, a frame stays in memory for good.
            All others serve the next frame only.
        max_memory_frames: keep only the first and the latest permanent frames, so many in all; None: keep all.
        amp: compute in 16 bits where that is safe (bfloat16 on a CPU, float16 elsewhere).

    Attributes:
        labels: the values under which the objects were given; channel i+1 of the probabilities is ``labels[i]``.
    """

    def __init__(self, network: PropagationNetwork, top_k: int | None = 50, kernel_sigma: float | None = None,
                 mem_every: int = 5, max_memory_frames: int | None = None, amp: bool = False):
        self.network = network
        self.device = next(network.parameters()).device
        self.top_k, self.kernel_sigma = top_k, kernel_sigma
        self.mem_every, self.max_memory_frames = mem_every, max_memory_frames
        self.amp = amp
        self.labels: list[int] = []
        self._groups: list[_Group] = []         # in the order of the labels
        self._unmemorized: _Unmemorized | None = None
        self._since_permanent = 0

    @torch.inference_mode()
    def step(self, image: Tensor, mask: Tensor | None = None, given: list[int] | None = None) -> Tensor:
        """Take the next frame and tell where the objects are in it.

        Args:
            image: (3, H, W), normalised with the ImageNet mean and standard deviation; all frames of one size.
            mask: (H, W) integers, objects given on this frame: each non-zero value is an object. One not seen
                before is followed from here on; one already followed is corrected. Where nothing is given (0),
                other objects keep their prediction.
            given: the objects that the mask is about, if not just those that have a pixel in it: one without is
                taken to be nowhere in this frame.

        Returns:
            (K+1, H, W) probabilities, background first, then ``labels`` in their order. K is 0 before the
            first mask.

        Raises:
            ValueError: the frame is smaller than 16 pixels, of another size than the ones before, or the mask
                is of another size than the frame.
        """
        height, width = image.shape[-2:]
        if min(height, width) < STRIDE:
            raise ValueError(f"a frame of {width}x{height} pixels is too small, both sides need {STRIDE} or more")
        if mask is not None and mask.shape != (height, width):
            raise ValueError(f"mask of {tuple(mask.shape)} for a frame of {(height, width)}")
        zeros = padding(height, width)
        image = F.pad(image.to(self.device, non_blocking=True), zeros)
        if self._unmemorized is not None and self._unmemorized.image.shape != image.shape:
            raise ValueError(f"the frame is {width}x{height} pixels, those before it were not")

        with torch.autocast(self.device.type, _half(self.device)) if self.amp else nullcontext():
            self._memorize_latest()
            query = self.network.encode_query(_batch(image)) if self.labels else None
            probabilities = image.new_ones(1, *image.shape[1:]) if query is None else self._predict(query)
        self._since_permanent += 1
        if mask is not None and given is None:
            given = [label for label in mask.unique().tolist() if label]
        if given:
            probabilities = self._correct(probabilities, F.pad(mask.to(self.device), zeros), given)
            self._since_permanent = 0
        if self.labels:
            permanent = self._since_permanent in (0, self.mem_every)
            self._since_permanent %= self.mem_every
            self._unmemorized = _Unmemorized(image, probabilities, query if self.network.shares_keys else None,
                                             permanent)
        return crop(probabilities, height, width)

    def _memorize_latest(self) -> None:
        if self._unmemorized is None:
            return
        image, probabilities, query, permanent = self._unmemorized
        keys, values = self.network.memorize(_batch(image), probabilities[None, 1:], query)
        sizes = [group.size for group in self._groups]
        for index, (group, value) in enumerate(zip(self._groups, values[0].split(sizes), strict=True)):
            group.bank.add(keys[0, 0 if self.network.shares_keys else index], value.flatten(0, 1), permanent)

    def _predict(self, query: Query) -> Tensor:
        """Probabilities (K+1, H, W) of the known objects, read from the memory."""
        height, width = query.key.shape[-2:]
        rows = query.key[0].flatten(1).T.contiguous()
        readouts = [read(rows, group.bank.blocks(), self.top_k, self.kernel_sigma, width)
                    .T.unflatten(0, (group.size, -1)).unflatten(2, (height, width)) for group in self._groups]
        return aggregate(self.network.segment(query, torch.cat(readouts)[None])[0])

    def _correct(self, probabilities: Tensor, mask: Tensor, given: list[int]) -> Tensor:
        """Put the given objects in the place of what was predicted (or was not yet known) for them."""
        objects = dict(zip(self.labels, probabilities[1:] * (mask == 0), strict=True))
        new = [label for label in given if label not in objects]
        self.labels += new
        sizes = [len(new)] if self.network.shares_keys else [1] * len(new)
        self._groups += [_Group(size, MemoryBank(self.max_memory_frames)) for size in sizes if size]
        objects |= {label: (mask == label).to(probabilities.dtype) for label in given}
        return aggregate(torch.stack([objects[label] for label in self.labels]))


def to_label_map(probabilities: Tensor, labels: list[int], size: tuple[int, int]) -> Tensor:
    """The likeliest object at each pixel.

    Args:
        probabilities: (K+1, H, W), background first.
        labels: the value to write for each of the K objects, 0 to 255.
        size: (height, width) of the result; probabilities are resized to it bilinearly.

    Returns:
        (height, width) uint8, 0 where the background is likeliest.
    """
    if labels != sorted(labels):        # of objects exactly as likely the lowest label wins, as published
        order = sorted(range(len(labels)), key=labels.__getitem__)
        probabilities, labels = probabilities[[0, *(1 + place for place in order)]], sorted(labels)
    if tuple(probabilities.shape[1:]) != tuple(size):
        probabilities = F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    values = torch.tensor([0, *labels], dtype=torch.uint8, device=probabilities.device)
    best = probabilities.max(0).indices                 # argmax takes ten times as long on a CPU
    return values.index_select(0, best.flatten()).view(best.shape)


def _batch(image: Tensor) -> Tensor:
    """(C, H, W) -> (1, C, H, W) in channels-last order, in which convolutions run faster."""
    return image[None].contiguous(memory_format=torch.channels_last)


def _half(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cpu" else torch.float16
