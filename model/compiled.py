"""Functions of the network in C++, where PyTorch is slow on a CPU."""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from util.compiler import compile_library

FOLDER = Path(__file__).parent


def load_function(name: str, file: str, definitions: str = "") -> Callable[..., None] | None:
    """Return a function in C++. Its arguments are tensors on the CPU, None, and integers; MemoryError if it returns 1.

    Args:
        name: of the function.
        file: in this folder, compiled after vectors.h and the definitions.

    Returns:
        None where it cannot be compiled, see `compile_library`.
    """
    source = "\n".join(((FOLDER / "vectors.h").read_text(), definitions, (FOLDER / file).read_text()))
    library = compile_library(source, FOLDER / "__pycache__")
    if library is None:
        return None
    function = getattr(library, name)

    def call(*arguments: Tensor | int | None) -> None:
        if function(*map(_convert, arguments)):
            raise MemoryError(f"in {file}")

    return call


def can_use_compiled(x: Tensor) -> bool:
    """Return whether functions in C++ may replace PyTorch's: on a CPU, without gradients, not compiled or exported."""
    traced = type(x) is not Tensor or torch.jit.is_tracing() or torch.compiler.is_compiling()
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not traced


def _convert(argument: Tensor | int | None) -> ctypes.c_void_p | ctypes.c_int64:
    """Return a pointer to a tensor's elements, or a number, as C++ expects it."""
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())
