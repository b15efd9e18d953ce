"""Compiles C++ code for this CPU."""
from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from util.files import write_atomic

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-signed-zeros", "-fno-trapping-math", "-fopenmp", "-shared",
         "-fPIC", "-x", "c++", "-")
FLAGS_OF_CPU = {"AVX2": ("-mavx2", "-mfma"), "AVX512": ("-mavx512f", "-mfma")}
MAX_SECONDS = 60
_one_at_a_time = threading.Lock()


def compile_library(source: str, folder: Path) -> ctypes.CDLL | None:
    """Return C++ code as a library.

    It is compiled once and kept, like Python's byte code, if the folder can be written to. The compiler is ``$CXX``, or
    ``g++`` if it is not set.

    Args:
        source: the code, for OpenMP and at least AVX2.
        folder: where compiled code is kept.

    Returns:
        None on other systems than Linux, on other CPUs, and where the code cannot be compiled.
    """
    cpu_flags = FLAGS_OF_CPU.get(torch.backends.cpu.get_cpu_capability())
    if sys.platform != "linux" or cpu_flags is None:
        return None
    with _one_at_a_time, suppress(OSError, ValueError, subprocess.SubprocessError), TemporaryDirectory() as temporary:
        command = [*shlex.split(os.environ.get("CXX") or "g++"), *cpu_flags, *FLAGS]
        name = hashlib.sha256("\0".join((*command, source)).encode()).hexdigest()[:32] + ".so"
        with suppress(OSError):                 # not there, or of another system
            return ctypes.CDLL(str(folder / name))
        path = Path(temporary, name)
        subprocess.run([*command, "-o", str(path)], input=source.encode(), capture_output=True, check=True,
                       timeout=MAX_SECONDS)
        library = ctypes.CDLL(str(path))
        with suppress(OSError):
            write_atomic(folder / name, path.read_bytes())
        return library
    return None
