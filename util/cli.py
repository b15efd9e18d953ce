"""How scripts end on what a user can mend: one line that names the culprit, and exit code 2."""
from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something that the user gave is not usable; the message is the whole story, in one line."""


def warn(message: str) -> None:
    """One line on standard error, for what is odd but can be worked with."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def first_line(error: object) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def pluralize(number: int, what: str) -> str:
    """1 video, 2 videos."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class _Stopped(BaseException):
    """A signal that ends a process, made to pass through what cleans up."""


def _stop(number: int, _: object) -> None:
    raise _Stopped(number)


def run(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit: 0 or what it returns, 2 on bad input, 128 + its number on a signal."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    try:
        code = main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:                  # whoever read our output has heard enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except OSError as error:                 # a full disk, a folder that vanished: the name is in the message
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except _Stopped as stopped:
        print("\ninterrupted; what was finished is whole, nothing half-written is left", file=sys.stderr)
        code = 128 + stopped.args[0]
    sys.exit(code)


def positive_int(text: str) -> int:
    """An argument that is a whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def non_negative_int(text: str) -> int:
    """An argument that is a whole number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def at_least(smallest: int) -> Callable[[str], int]:
    """An argument that is a whole number not below the smallest."""
    def number(text: str) -> int:
        if positive_int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is less than {smallest}")
        return int(text)
    return number


def positive_float(text: str) -> float:
    """An argument that is a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def identifier(text: str) -> str:
    """An argument that can be part of a file's name."""
    if not re.fullmatch(r"[\w.+=@-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r}: use letters, digits and . _ - + = @ only")
    return text


def seed(text: str) -> int:
    """An argument that seeds a generator."""
    if non_negative_int(text) >= 2 ** 63:
        raise argparse.ArgumentTypeError(f"{text!r} has more than 63 bits")
    return int(text)
