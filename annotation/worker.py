"""The process that propagates masks for the page, so that the server stays responsive and survives a lack of memory."""
from __future__ import annotations

import argparse
import os
import signal
import zlib
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

from annotation.project import Pass, Result, write_prediction
from inference.confidence import object_confidences
from inference.propagation import PropagationConfig, Timer, load_for_propagation, propagate
from inference_core import InferenceCore
from model.network import PropagationNetwork
from util.cli import InputError, first_line, user_message
from util.device import allow_tf32, pick_device

SNAPSHOT_BYTES = 2 ** 29        # of one pass
SNAPSHOT_STRIDE = 8             # frames


class Snapshots:
    """Copies of the core along a pass, so that a pass can be resumed before a frame whose input mask changed."""

    def __init__(self):
        self.stride = SNAPSHOT_STRIDE
        self._cores: dict[int, tuple[str, InferenceCore]] = {}

    def add(self, position: int, depends: str, core: InferenceCore) -> None:
        """Keep a copy of the core after a frame. Beyond the limit of memory, every other copy is dropped."""
        self._cores[position] = depends, core.copy()
        while len(self._cores) > 2 and sum(other.nbytes for _, other in self._cores.values()) > SNAPSHOT_BYTES:
            self.stride *= 2
            self._cores = {index: value for index, value in self._cores.items()
                           if index % self.stride == 0 or index == position}

    def before(self, position: int, depends: list[str]) -> tuple[int, InferenceCore] | None:
        """The last frame before ``position`` of which there is a valid copy, and a core in its state."""
        self._cores = {index: value for index, value in self._cores.items()
                       if index >= len(depends) or value[0] == depends[index]}      # beyond the end of a shorter pass
        index = max((index for index in self._cores if index < position), default=None)
        return None if index is None else (index, self._cores[index][1].copy())


def work(pipe: Connection, stop: Event, args: argparse.Namespace) -> None:
    """Load the network and propagate what is asked for, until the server ends.

    Sends ("ready", variant, device, settings) or ("failed", message) at first. For every `Pass` received, it sends
    ("frame", index, Result) for each frame and then ("done", None), ("stopped", None) or ("failed", message).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)         # Ctrl-C is for the server
    if hasattr(os, "nice"):
        os.nice(5)                              # the page comes first
    try:
        device = pick_device(args.device)
        allow_tf32(args.tf32)
        network = load_for_propagation(args.model, device)
        config = PropagationConfig.from_args(args, network)
        checksum = zlib.crc32(args.model.read_bytes())
        settings = f"{checksum:08x} {replace(config, workers=0)} {args.tf32}"
        pipe.send(("ready", network.variant, str(device), settings))
    except (InputError, OSError) as error:
        pipe.send(("failed", user_message(error)))
        return
    snapshots = {"forward": Snapshots(), "backward": Snapshots()}
    try:
        while True:
            job = pipe.recv()
            try:
                pipe.send((_run(job, network, config, snapshots[job.direction], pipe, stop), None))
            except (InputError, OSError, RuntimeError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                pipe.send(("failed", user_message(error) or first_line(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):       # the server has ended
        return


def _run(job: Pass, network: PropagationNetwork, config: PropagationConfig, snapshots: Snapshots, pipe: Connection,
         stop: Event) -> str:
    start = job.indices.index(job.start)
    latest, core = snapshots.before(start, job.depends) or (-1, config.new_core(network))
    frames = propagate(core, job.video, config, job.indices[latest + 1:], Timer())
    for position, prediction in enumerate(frames, latest + 1):
        index, depends = prediction.index, job.depends[position]
        result = None
        if position >= start:
            result = Result(depends, prediction.labels, object_confidences(prediction))
            write_prediction(job.folder / f"{job.video.frames.names[index]}.png", prediction.label_map, job.palette,
                             result)
        pipe.send(("frame", index, result))
        is_last = position == len(job.indices) - 1
        if position % snapshots.stride == 0 or is_last or stop.is_set():
            snapshots.add(position, depends, core)
        if stop.is_set() and not is_last:
            return "stopped"
    return "done"
