"""Command-line scripts: user-facing errors, argument types, and the function that runs ``main``.

Every script imports this module before torch, and torch only inside ``main``.
"""
from __future__ import annotations

import argparse
import errno
import io
import math
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# PyTorch's OpenMP threads spin while they wait, which ruins the speed beside any other busy process: 1.92 s a frame
# instead of 0.62 (lite, 480x854, two cores). Some microseconds of it save most of the time that waking a thread takes.
# OpenMP reads the variables when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")         # of GNU's OpenMP, that of PyTorch on Linux

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The signals that ask a process to end. Windows has no SIGHUP.
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]

# Ctrl-C while a script is being imported prints nothing; afterwards, `run` handles it. Another program's hook is kept.
if sys.excepthook is sys.__excepthook__:
    sys.excepthook = lambda kind, *rest: kind is KeyboardInterrupt or sys.__excepthook__(kind, *rest)


class InputError(Exception):
    """The user's input cannot be used. The message is one line that names the file or flag and the remedy."""


class Interrupted(BaseException):
    """A signal asked the process to end; a BaseException, so that only cleanup code sees it."""


def warn(message: str) -> None:
    """Print a warning on standard error."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def first_line(error: object) -> str:
    """The first line of an error's message, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def pluralize(number: int, noun: str) -> str:
    """1 video, 2 videos."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def extras_for(user: str) -> Iterator[None]:
    """Raise InputError if the block, which imports packages of requirements-extras.txt for a script or flag, fails."""
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise InputError(f"{user} needs {package}; install it with pip install -r requirements-extras.txt") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, PyTorch, a library or the system reports a lack of memory."""
    phrases = ("allocate memory", "can't start new thread", "failed to map segment", "out of memory",
               "Invalid buffer size")          # MPS
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or any(phrase in str(error) for phrase in phrases))


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame:
        if "importlib._bootstrap" in frame.f_code.co_filename:      # NumPy and PyTorch do not survive an exception
            os._exit(128 + number)
        frame = frame.f_back
    raise Interrupted(number)


def ignore_signals() -> None:
    """Leave signals to the main process, in a worker process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def default_signals() -> Iterator[None]:
    """Let signals end the process at once during the block, for library calls that keep Python's handlers waiting."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number in handlers:
        if handlers[number] != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Delay the signals that `run` handles until the end of the block, which must be short.

    In another thread than the main one, in which signals are handled, this does nothing.
    """
    received: list[int] = []
    handled = [number for number in SIGNALS if signal.getsignal(number) is _interrupt
               and threading.current_thread() is threading.main_thread()]
    try:
        for number in handled:
            signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number in handled:
            signal.signal(number, _interrupt)
        if received:
            raise Interrupted(received[0])


class _Stream(io.FileIO):
    """Standard output or error. What cannot be written (full disk, closed pipe) is dropped and the work continues."""

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _prepare_streams() -> None:
    """Make sure that neither a closed or full stream nor an unprintable file name ends the work."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):    # replaced, as by pytest
            continue
        if stream is None:                               # closed by the caller: no other file may get its descriptor
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        raw = io.BufferedWriter(_Stream(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, getattr(stream, "encoding", "utf-8"), "backslashreplace",
                                            line_buffering=True))


def run(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit.

    The exit code is what ``main`` returns (None: 0), 2 after one line for an `InputError`, an OSError or a lack of
    memory, and 128 + N after signal N. With the environment variable MASK_PROPAGATION_TRACEBACK=1, the traceback is
    printed before that line.
    """
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]      # nohup ignores one
    for number in handled:
        signal.signal(number, _interrupt)
    try:
        _prepare_streams()
        code = main() or 0
    except Interrupted as interrupted:
        print("\ninterrupted: finished output is kept", file=sys.stderr)
        code = 128 + interrupted.args[0]
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        if os.environ.get("MASK_PROPAGATION_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {message}", file=sys.stderr)
        code = 2
    finally:
        for number in handled:                           # nothing is left to clean up
            signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def user_message(error: Exception) -> str | None:
    """The line for the user, or None if the error is a bug."""
    if isinstance(error, InputError):
        return str(error)
    if is_out_of_memory(error):
        return f"not enough memory ({first_line(error)}); close other programs, or work with smaller or fewer frames"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        if error.errno in DISK_FULL:
            return f"{place}disk full; free some space and run this again, finished output is kept"
        return f"{place}{error.strerror or first_line(error)}"
    return None


def at_least(smallest: int) -> Callable[[str], int]:
    """The argument type of integers from ``smallest`` up."""
    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {smallest}")
        return int(text)
    return integer


positive_int, non_negative_int = at_least(1), at_least(0)


def positive_float(text: str) -> float:
    """The argument type of finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def identifier(text: str) -> str:
    """The argument type of text that becomes part of a file name."""
    if not re.fullmatch(r"[\w.+=@-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: use letters, digits and . _ - + = @ only")
    return text


def seed(text: str) -> int:
    """The argument type of seeds for random generators."""
    if non_negative_int(text) >= 2 ** 63:
        raise argparse.ArgumentTypeError(f"{text!r} has more than 63 bits")
    return int(text)
