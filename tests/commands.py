"""Running the project's scripts as a user does."""
from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from model import winograd

ROOT = Path(__file__).resolve().parents[1]
needs_compiler = pytest.mark.skipif(winograd._kernel() is None, reason="no C++ compiler with OpenMP, or no x86 Linux")
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")


def command(script: str, *args: object) -> list[str]:
    """The command line of a script such as ``train.py`` or ``scripts/demo.py``, for any working directory."""
    path = Path(script)
    start = ["-m", ".".join(path.with_suffix("").parts)] if path.parts[0] == "scripts" else [str(ROOT / path)]
    return [sys.executable, *start, *map(str, args)]


def free_port() -> int:
    """A port of this machine that no program uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
