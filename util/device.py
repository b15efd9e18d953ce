"""Where to compute, and which share of the work is this process's."""
from __future__ import annotations

import datetime
import os
from typing import NamedTuple

import torch

from util.cli import InputError, first_line

DEVICES = ("cpu", "cuda", "mps", "xpu")


def pick_device(name: str | None = None) -> torch.device:
    """The device called ``name`` (cpu, cuda, cuda:1, mps), or the best there is: CUDA, else MPS, else the CPU.

    Raises:
        InputError: there is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if name.split(":")[0] not in DEVICES:
            raise RuntimeError(f"choose from {', '.join(DEVICES)}")
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: not available on this machine "
                         f"({first_line(error)})") from None
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return device


def allow_tf32(allowed: bool) -> None:
    """Whether NVIDIA GPUs may round the factors of float32 products to 10 bits, from here on in the whole process.

    PyTorch's own choice is to do so in convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def out_of_memory(error: Exception) -> bool:
    """Whether an error is one of those by which PyTorch or the system says so."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


class ProcessGroup(NamedTuple):
    """This process's place among those that share the work."""
    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls) -> ProcessGroup:
        """Join the processes that ``torchrun`` started; alone when started plainly."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world == 1:
            return cls()
        # Only figures are exchanged, at the end, when one process may wait hours for another.
        torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(days=30))
        return cls(torch.distributed.get_rank(), world)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process; waits for all of them."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return bool(flags)

    def gather(self, item: object) -> list:
        """``item`` of every process, in the order of ranks; waits for all of them."""
        items = [item]
        if self.world > 1:
            items = [None] * self.world
            torch.distributed.all_gather_object(items, item)
        return items
