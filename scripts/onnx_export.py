"""The ONNX files of a network, and their comparison with PyTorch."""
from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from torch.export import Dim

from dataset.synthetic import draw_clip
from inference.onnx_core import OnnxCore
from inference.stream import StreamCore
from model.defaults import INFERENCE_DEFAULTS, STRIDE
from model.memory_reader import Kernel, affinity
from model.modules import DecoderContext
from model.network import PropagationNetwork
from util.cli import InputError
from util.files import atomic_file

LARGEST_KERNEL = 2 ** 17          # elements
QUERY = ("key", "value1", "value2", "skip8", "skip4")


class EncodeQuery(nn.Module):
    """`PropagationNetwork.encode_query`; the stride-16 features come first if `Memorize` needs them."""

    def __init__(self, network: PropagationNetwork):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) -> the tensors of a `Query`."""
        f16, key, (value, skip8, skip4) = self.network.encode_query(image)
        return (*([f16] if self.network.shares_keys else []), key, *value, skip8, skip4)


class Memorize(nn.Module):
    """`PropagationNetwork.memorize`, of all objects at once."""

    def __init__(self, network: PropagationNetwork):
        super().__init__()
        self.encoder, self.projection = network.mask_rgb_encoder, network.kv_m_f16
        self.single_object = network.single_object

    def forward(self, image: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """image: (1, 3, H, W), or stride-16 features; masks: (1, K, H, W) -> [key and] value, (K, C, h, w) each."""
        channels = masks.unsqueeze(2)
        if not self.single_object:
            index = torch.arange(masks.shape[1])
            others = (index != index.unsqueeze(1)).float() @ masks.flatten(2)
            channels = torch.cat([channels, others.view_as(channels)], 2)
        features = self.encoder(self.encoder.image_part(image), channels)
        return (features,) if self.projection is None else self.projection(features)


class Readout(nn.Module):
    """`model.memory_reader.readout`, without tiles and groups."""

    def __init__(self, top_k: int, kernel_sigma: float | None):
        super().__init__()
        self.top_k, self.kernel_sigma = top_k, kernel_sigma

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query: (1, C_k, h, w); key: (M, C_k); value: (M, C) -> (C, h, w)."""
        rows = query[0].flatten(1).T
        scores = affinity(rows, key)
        if self.kernel_sigma is not None:
            kernel = Kernel(rows, self.kernel_sigma, query.shape[3])
            scores = scores + kernel.query @ kernel.centre[scores.argmax(0)].T
        scores, indices = scores.topk(self.top_k)
        readout = scores.softmax(1).unsqueeze(1) @ value[indices]
        return readout.squeeze(1).T.unflatten(1, query.shape[2:])


class Segment(nn.Module):
    """`PropagationNetwork.segment`, of all objects at once."""

    def __init__(self, network: PropagationNetwork):
        super().__init__()
        self.decoder = network.decoder

    def forward(self, readouts: Tensor, value1: Tensor, value2: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """readouts: (1, K, C_v, h, w) -> independent probabilities (1, K, H, W)."""
        return torch.sigmoid(self.decoder(readouts, DecoderContext((value1, value2), skip8, skip4)))


def export(network: PropagationNetwork, size: Sequence[int], folder: Path) -> Iterator[Path]:
    """Write the four files for frames of a size (height, width), and yield their paths.

    Args:
        network: of `load_network`, on the CPU.

    Raises:
        InputError: the frame has fewer stride-16 locations than the network reads.
    """
    height, width = (side + -side % STRIDE for side in size)
    defaults = INFERENCE_DEFAULTS[network.variant]
    top_k = defaults.top_k
    if height * width < top_k * STRIDE ** 2:
        raise InputError(f"--size {size[0]} {size[1]}: too small, {top_k} locations of 16x16 pixels are read")
    objects, locations, channels = Dim("objects"), Dim("locations"), Dim("channels")
    image, masks = torch.randn(1, 3, height, width), torch.rand(1, 2, height, width)
    encode, memorize, source = EncodeQuery(network), Memorize(network), "image"
    names = QUERY
    if network.shares_keys:                     # the query features are encoded, not the image
        names, source = ("features", *QUERY), "features"
    query = {"image": image, **dict(zip(names, encode(image), strict=True))}
    yield _export(encode, {"image": image}, names, {}, folder / "encode_query.onnx", mem_every=defaults.mem_every)

    *memory_key, value = memorize(query[source], masks)
    yield _export(memorize, {source: query[source], "masks": masks}, [*(["key"] if memory_key else []), "value"],
                  {"masks": {1: objects}}, folder / "memorize.onnx")

    rows = 2 * query["key"][0, 0].numel()
    memory = {"memory_key": torch.randn(rows, query["key"].shape[1]), "memory_value": torch.randn(rows, value.shape[1])}
    yield _export(Readout(top_k, defaults.kernel_sigma), {"key": query["key"], **memory}, ["readout"],
                  {"memory_key": {0: locations}, "memory_value": {0: locations, 1: channels}}, folder / "readout.onnx")

    context = {name: query[name] for name in QUERY if name != "key"}
    yield _export(Segment(network), {"readouts": value.unsqueeze(0), **context}, ["masks"],
                  {"readouts": {1: objects}}, folder / "segment.onnx")


def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], dynamic: dict[str, dict],
            path: Path, **metadata: int) -> Path:
    """Write one file. With gradients enabled, the network takes the path without Winograd convolutions."""
    with atomic_file(path) as partial, torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")             # about names of dynamic dimensions
        program = torch.onnx.export(module.eval(), tuple(inputs.values()), input_names=list(inputs),
                                    output_names=list(outputs), dynamo=True, optimize=False, verbose=False,
                                    dynamic_shapes=tuple(dynamic.get(name) for name in inputs))
        # By default, large padded kernels are not folded, and ONNX Runtime takes their padding for that of the input.
        optimize_ir(program.model, input_size_limit=LARGEST_KERNEL)
        program.model.metadata_props.update({name: str(value) for name, value in metadata.items()})
        program.save(str(partial), external_data=False)
    return path


class Comparison(NamedTuple):
    """Share of the pixels with equal labels, and median seconds per frame."""
    equal: float
    pytorch: float
    onnx: float


def compare(network: PropagationNetwork, folder: Path, size: Sequence[int], frames: int, objects: int) -> Comparison:
    """Propagate a drawn clip with PyTorch and with ONNX Runtime in turn, frame by frame.

    The first two frames, which are annotated or read for the first time, are not timed.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")        # as OMP_WAIT_POLICY of PyTorch
    cores = StreamCore(network, size=None, amp=False).segment_frame, OnnxCore(folder, options=options).step
    equal, seconds, mask = [], ([], []), None
    for frame, ground_truth in draw_clip(frames, *size, objects, seed=0):
        mask = ground_truth if not equal else None
        found = []
        for core, times in zip(cores, seconds, strict=True):
            start = time.perf_counter()
            found.append(core(frame, mask))
            times.append(time.perf_counter() - start)
        equal.append(np.mean(found[0] == found[1]))
    return Comparison(float(np.mean(equal)), *(median(times[2:]) for times in seconds))
