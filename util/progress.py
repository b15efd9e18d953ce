"""Progress bars on standard error."""
from __future__ import annotations

import sys

import progressbar

SECONDS_BETWEEN_LINES = 10       # where standard error is no terminal, and every update is a new line


class ProgressBar(progressbar.ProgressBar):
    """A bar that ends with its last state.

    Use as a context manager, so that this state is printed before the message of an error.
    """

    def finish(self, end: str = "\n", dirty: bool = False) -> None:
        """End the bar, at its current value if ``dirty``, else at its maximum."""
        if dirty and not self.finished():
            self.update(force=True)
        super().finish(end, dirty)


def progress_bar(total: int, unit: str) -> ProgressBar:
    """A bar with the rate and the remaining time, in few lines where standard error is no terminal."""
    rate = progressbar.FileTransferSpeed("%(scaled).2f %(unit)s/s", unit=unit, prefixes=[""])
    widgets = [progressbar.SimpleProgress(), f" {unit} ", progressbar.Percentage(), " ", progressbar.Bar(), " ", rate,
               " ", progressbar.AdaptiveETA()]
    return ProgressBar(0, total, widgets, fd=sys.stderr,
                       min_poll_interval=0 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES)
