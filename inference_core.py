"""Propagation of masks through a video, frame by frame."""
from __future__ import annotations

from copy import copy, deepcopy
from numbers import Integral, Real
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.aggregate import aggregate
from model.memory_bank import MemoryBank
from model.memory_reader import readout
from model.network import PropagationNetwork, Query
from model.padding import STRIDE, crop, padding


class _LatestFrame(NamedTuple):
    """The latest frame. It is memorised only when another frame follows."""
    image: Tensor           # (3, H, W), padded
    probabilities: Tensor   # (K+1, H, W), padded
    query: Query | None     # kept if `memorize` can reuse it
    temporary: bool


class _ObjectGroup(NamedTuple):
    """Objects with a common memory bank: one object, or all first seen on the same frame if objects share keys."""
    size: int
    bank: MemoryBank


class InferenceCore:
    """Propagates the masks of any number of objects through one video, given as a stream of frames.

    Frames enter in order, forward or backward in time. Objects may be annotated on any frame. The core holds the memory
    banks and the latest frame, nothing else that grows.

    Args:
        network: its device is used.
        top_k: number of affinities per query location that enter the softmax; None: all.
        kernel_sigma: standard deviation, in stride-16 locations, of kernelized memory reading; None: off.
        mem_every: every N-th frame, counted from the last memory frame, becomes a memory frame. All others are in
            memory for the next frame only.
        max_memory_frames: keep only the first and the most recent memory frames, this many in total; None: keep all.
        amp: compute in 16 bits, bfloat16 on a CPU and float16 elsewhere. Affinities stay in float32.

    Raises:
        ValueError: one of these settings is not a positive number, or not an integer where it counts something.

    Attributes:
        labels: label values of the objects; channel i+1 of the probabilities belongs to ``labels[i]``.
    """

    def __init__(self, network: PropagationNetwork, top_k: int | None = 50, kernel_sigma: float | None = None,
                 mem_every: int = 5, max_memory_frames: int | None = None, amp: bool = False):
        for name, value in (("top_k", top_k), ("kernel_sigma", kernel_sigma), ("mem_every", mem_every),
                            ("max_memory_frames", max_memory_frames)):
            if value is None and name != "mem_every":
                continue
            kind = Real if name == "kernel_sigma" else Integral
            if not isinstance(value, kind) or not value > 0:
                noun = "number" if kind is Real else "integer"
                raise ValueError(f"{name} is {value!r}, but it must be a positive {noun}")
        self.network = network
        self.device = next(network.parameters()).device
        self.top_k, self.kernel_sigma = top_k, kernel_sigma
        self.mem_every, self.max_memory_frames = mem_every, max_memory_frames
        self.amp = amp
        self.labels: list[int] = []
        self._groups: list[_ObjectGroup] = []         # in the order of the labels
        self._latest: _LatestFrame | None = None
        self._size: tuple[int, int] | None = None     # of all frames
        self._since_memory_frame = 0

    @torch.inference_mode()
    def step(self, image: Tensor, mask: Tensor | None = None, input_labels: list[int] | None = None) -> Tensor:
        """Segment the next frame.

        Args:
            image: (3, H, W) floating-point, normalised with the ImageNet mean and standard deviation; all frames have
                the same size.
            mask: (H, W) integers, the input mask of an annotated frame. A new label, 1 to 255, is an object to be
                tracked from this frame on; a known label is corrected. Other objects keep their prediction where the
                mask is 0.
            input_labels: the labels that the mask annotates, where they are not just its non-zero values: a label
                without a pixel marks its object as absent from this frame.

        Returns:
            (K+1, H, W) probabilities, background first, then ``labels`` in order. K is 0 before the first mask.

        Raises:
            ValueError: the frame has another shape or type, fewer than 16 pixels on a side, or another size than the
                frames before it; or the mask has another size or type, or labels are out of range.
        """
        if image.dim() != 3 or len(image) != 3 or not image.is_floating_point():
            raise ValueError(f"frame of {image.dtype} {tuple(image.shape)}: it must be floating-point (3, H, W)")
        height, width = image.shape[-2:]
        if min(height, width) < STRIDE:
            raise ValueError(f"frame of {width}x{height} pixels: both sides need at least {STRIDE}")
        if mask is not None and mask.shape != (height, width):
            raise ValueError(f"mask of size {tuple(mask.shape)} for a frame of size {(height, width)}")
        if self._size not in (None, (height, width)):
            raise ValueError(f"frame of {width}x{height} pixels: the frames before it have another size")
        if mask is not None and mask.is_floating_point():
            raise ValueError(f"mask of {mask.dtype}: it must be integers, the labels of the objects")
        if mask is not None and input_labels is None:
            input_labels = [label for label in mask.unique().tolist() if label]
        input_labels = list(dict.fromkeys(map(int, input_labels or ())))
        if input_labels and mask is None:
            raise ValueError("input_labels need a mask")
        if not all(0 < label < 256 for label in input_labels):
            raise ValueError(f"labels {input_labels}: they must be from 1 to 255")
        zeros = padding(height, width)
        image = F.pad(image.to(self.device, torch.float32, non_blocking=self.device.type == "cuda"), zeros)

        with torch.autocast(self.device.type, enabled=self.amp):     # by default bfloat16 on a CPU, float16 elsewhere
            self._memorize_latest()
            query = self.network.encode_query(_batch(image)) if self.labels else None
            probabilities = image.new_ones(1, *image.shape[1:]) if query is None else self._segment(query)
        labels, groups, latest, since_memory_frame = self.labels, self._groups, None, self._since_memory_frame + 1
        if input_labels:
            labels, groups, probabilities = self._apply_mask(probabilities, F.pad(mask.to(self.device), zeros),
                                                             input_labels)
            since_memory_frame = 0
        if labels:
            temporary = since_memory_frame not in (0, self.mem_every)
            since_memory_frame %= self.mem_every
            latest = _LatestFrame(image, probabilities, query if self.network.shares_keys else None, temporary)
        result = crop(probabilities, height, width).clone()         # the caller may change it
        # A step that fails before this line can be repeated.
        self.labels, self._groups, self._latest = labels, groups, latest
        self._since_memory_frame, self._size = since_memory_frame, (height, width)
        return result

    @torch.inference_mode()
    def copy(self) -> InferenceCore:
        """Return an independent core in the same state, from which the pass can be resumed later."""
        other = copy(self)
        other.labels, other._groups = list(self.labels), deepcopy(self._groups)
        return other

    @property
    def nbytes(self) -> int:
        """Return the bytes of the memory banks."""
        return sum(group.bank.nbytes for group in self._groups)

    def _memorize_latest(self) -> None:
        if self._latest is None:
            return
        image, probabilities, query, temporary = self._latest
        keys, values = self.network.memorize(_batch(image), probabilities[None, 1:], query)
        # Copies, which share their storage: if one of them cannot grow, the step can be repeated.
        groups = [group._replace(bank=copy(group.bank)) for group in self._groups]
        sizes = [group.size for group in groups]
        for index, (group, value) in enumerate(zip(groups, values[0].split(sizes), strict=True)):
            group.bank.add(keys[0, 0 if self.network.shares_keys else index], value.flatten(0, 1), temporary)
        self._groups, self._latest = groups, None     # so that a step that fails later can be repeated

    def _segment(self, query: Query) -> Tensor:
        """Return the probabilities (K+1, H, W) of the known objects, read from the memory."""
        height, width = query.key.shape[-2:]
        rows = query.key[0].flatten(1).T.contiguous()
        readouts = [readout(rows, group.bank.blocks(), self.top_k, self.kernel_sigma, width)
                    .T.unflatten(0, (group.size, -1)).unflatten(2, (height, width)) for group in self._groups]
        return aggregate(self.network.segment(query, torch.cat(readouts)[None])[0])

    def _apply_mask(self, probabilities: Tensor, mask: Tensor,
                    input_labels: list[int]) -> tuple[list[int], list[_ObjectGroup], Tensor]:
        """Replace the predictions of the annotated objects by the input mask, and add new objects.

        Returns the labels, groups and probabilities of all objects.
        """
        objects = dict(zip(self.labels, probabilities[1:] * (mask == 0), strict=True))
        new = [label for label in input_labels if label not in objects]
        sizes = [len(new)] if self.network.shares_keys else [1] * len(new)
        groups = [_ObjectGroup(size, MemoryBank(self.max_memory_frames)) for size in sizes if size]
        objects |= {label: (mask == label).to(probabilities.dtype) for label in input_labels}
        return list(objects), self._groups + groups, aggregate(torch.stack(list(objects.values())))


def to_label_map(probabilities: Tensor, labels: list[int], size: tuple[int, int]) -> Tensor:
    """Return the label of the most probable object at each pixel.

    Args:
        probabilities: (K+1, H, W), background first.
        labels: label values of the K objects, 0 to 255.
        size: (height, width) of the result, to which probabilities are resized bilinearly.

    Returns:
        (height, width) uint8, 0 for background.
    """
    if labels != sorted(labels):        # among equal probabilities the lowest label wins, as published
        order = sorted(range(len(labels)), key=labels.__getitem__)
        probabilities, labels = probabilities[[0, *(1 + index for index in order)]], sorted(labels)
    if tuple(probabilities.shape[1:]) != tuple(size):
        probabilities = F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    values = torch.tensor([0, *labels], dtype=torch.uint8, device=probabilities.device)
    best = probabilities.max(0).indices                 # argmax takes ten times as long on a CPU
    return values.index_select(0, best.flatten()).view(best.shape)


def _batch(image: Tensor) -> Tensor:
    """(C, H, W) -> (1, C, H, W) in channels-last order, in which convolutions run faster."""
    return image[None].contiguous(memory_format=torch.channels_last)
