"""The compute device, and the group of processes that share the work."""
from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import distributed

from util.cli import InputError, default_signals, first_line, warn

DEVICES = ("cpu", "cuda", "mps", "xpu")
WAIT_TIMEOUT = timedelta(days=7)         # for the slowest process; one that has ended is noticed at once


def pick_device(name: str | None = None) -> torch.device:
    """The device called ``name`` (cpu, cuda, cuda:1, mps), or by default CUDA, else MPS, else the CPU."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if _mps_works() else "cpu"
    try:
        if name.split(":")[0] not in DEVICES:
            raise RuntimeError(f"choose from {', '.join(DEVICES)}")
        device = torch.device(name)
        if device.type == "cuda" and torch.cuda.is_available():
            if device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            torch.cuda.set_device(device)                   # else every process would also use GPU 0
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: not available on this machine ({first_line(error)})") from error
    return device


def _mps_works() -> bool:
    """Return whether MPS is available and can allocate: on virtual machines without a GPU it fails only then."""
    with suppress(RuntimeError):
        return torch.backends.mps.is_available() and torch.empty(1, device="mps").is_mps
    return False


def has_bfloat16_instructions(device: torch.device) -> bool:
    """Return whether the device is a CPU with instructions for bfloat16; old versions of PyTorch cannot tell."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def warn_of_slow_amp(device: torch.device) -> None:
    """Warn that mixed precision is slow, if the device is a CPU without instructions for bfloat16."""
    if device.type == "cpu" and not has_bfloat16_instructions(device):
        warn("--amp: PyTorch reports no bfloat16 instructions of this CPU; without them, this takes many times as long")


def peak_memory(device: torch.device) -> dict[str, float]:
    """The peak memory of this process in bytes: of its RAM, except on Windows, and of PyTorch's tensors on a GPU."""
    peaks = {}
    with suppress(ImportError):
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        peaks["RAM"] = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if device.type == "cuda":
        peaks["GPU"] = float(torch.cuda.max_memory_allocated(device))
    return peaks


def allow_tf32(allowed: bool) -> None:
    """Set whether NVIDIA GPUs may use TF32 in matrix products and convolutions; by default only in convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


class ProcessGroup(NamedTuple):
    """The processes of this run, connected by gloo; by default this one only.

    `join` before anything that can fail. A process that fails raises its error and exits as usual, and all others
    end: torchrun stops them, and their next `any` or `gather` raises InputError.
    """
    rank: int = 0
    world_size: int = 1
    connection: distributed.ProcessGroup | None = None

    @classmethod
    def join(cls) -> ProcessGroup:
        """Connect to the other processes if ``torchrun`` started more than one."""
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls()
        try:
            with default_signals():              # the other processes may never come
                distributed.init_process_group("gloo")
            atexit.register(distributed.destroy_process_group)           # else gloo's threads may abort at exit
            connection = distributed.new_group(timeout=WAIT_TIMEOUT)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"WORLD_SIZE={os.environ['WORLD_SIZE']}: cannot reach the other processes "
                             f"({first_line(error)}); if none of them has failed, start them with torchrun, or unset "
                             f"WORLD_SIZE to run alone") from error
        group = cls(distributed.get_rank(), distributed.get_world_size(), connection)
        group.any(False)        # so that none can fail, which ends it, while others are still connecting
        return group

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; waits for all of them."""
        return any(self.gather(flag))

    def gather(self, item: object) -> list:
        """The items of all processes in order of rank; waits for all of them."""
        items = [item] * self.world_size
        if self.world_size > 1:
            try:
                distributed.all_gather_object(items, item, self.connection)
            except RuntimeError as error:            # "Connection closed by peer"
                raise InputError("another process of this run has failed; see its error above") from error
        return items
