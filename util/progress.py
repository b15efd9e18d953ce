"""Progress bars on standard error."""
from __future__ import annotations

import sys

import progressbar

SECONDS_BETWEEN_LINES = 10       # where standard error is no terminal, and every update is a new line


class Rate(progressbar.widgets.WidgetBase):
    """The average rate since the start; each step of the bar counts ``per_step``."""

    def __init__(self, unit: str, per_step: int = 1):
        super().__init__()
        self.unit, self.per_step = unit, per_step

    def __call__(self, progress: progressbar.ProgressBar, data: dict) -> str:
        seconds = data["total_seconds_elapsed"]
        return f"{progress.value * self.per_step / seconds:.2f} {self.unit}/s" if seconds else ""


class ProgressBar(progressbar.ProgressBar):
    """A bar that prints few lines where there is no terminal, and its last state in any case.

    Use as a context manager, so that its last state is printed before the message of an error.
    """

    def __init__(self, max_value: int, widgets: list):
        super().__init__(0, max_value, widgets, fd=sys.stderr,
                         min_poll_interval=0 if sys.stderr.isatty() else SECONDS_BETWEEN_LINES)

    def finish(self, end: str = "\n", dirty: bool = False) -> None:
        """End the bar, at its present value if ``dirty``, else at its maximum."""
        if dirty and not self.finished():
            self.update(force=True)
        super().finish(end, dirty)

    def __del__(self) -> None:
        if self.started():                   # an error ended the work, and its message is printed already
            super().finish(dirty=True)


def frames_bar(total: int, unit: str = "frames") -> ProgressBar:
    """A bar over frames, or other units, with the rate and the remaining time."""
    return ProgressBar(total, [progressbar.SimpleProgress(), f" {unit} ", progressbar.Percentage(), " ",
                               progressbar.Bar(), " ", Rate(unit), " ", progressbar.ETA()])


def training_bar(start: int, stop: int, samples: int) -> ProgressBar:
    """A bar over the iterations from ``start`` to ``stop``, with samples per second and the remaining time."""
    return ProgressBar(max(stop - start, 0), [
        f"from {start} " if start else "", progressbar.SimpleProgress(), " iterations ", progressbar.Bar(), " ",
        Rate("samples", samples), " ", progressbar.AdaptiveETA()])
