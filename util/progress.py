"""Progress bars."""
from __future__ import annotations

import progressbar


class Rate(progressbar.widgets.WidgetBase):
    """What was done a second, on average since the start; each step counts ``times``."""

    def __init__(self, what: str, times: int = 1):
        super().__init__()
        self.what, self.times = what, times

    def __call__(self, progress: progressbar.ProgressBar, data: dict) -> str:
        seconds = data["total_seconds_elapsed"]
        return f"{progress.value * self.times / seconds:.2f} {self.what}/s" if seconds else ""


def frames_bar(total: int, what: str = "frames") -> progressbar.ProgressBar:
    """A bar with a rate and the time left, on standard error."""
    widgets = [progressbar.SimpleProgress(), f" {what} ", progressbar.Percentage(), " ", progressbar.Bar(), " ",
               Rate(what), " ", progressbar.ETA()]
    return progressbar.ProgressBar(max_value=total, widgets=widgets)


def training_bar(start: int, stop: int, samples: int) -> progressbar.ProgressBar:
    """A bar over iterations with samples/s and the time left, on standard error."""
    widgets = [f"from {start} " if start else "", progressbar.SimpleProgress(), " iterations ", progressbar.Bar(), " ",
               Rate("samples", samples), " ", progressbar.AdaptiveETA()]
    return progressbar.ProgressBar(max_value=max(stop - start, 0), widgets=widgets)


def bytes_bar(what: str, start: int, total: int | None) -> progressbar.ProgressBar:
    """A bar over the bytes of a file, on standard error, with the rate of late; ``total`` None: nobody knows."""
    widgets = [what, " ", progressbar.DataSize()]
    if total is not None:
        widgets += [" of ", progressbar.DataSize("max_value"), " ", progressbar.Percentage(), " ", progressbar.Bar()]
    widgets += [" ", progressbar.AdaptiveTransferSpeed()]
    if total is not None:
        widgets += [" ", progressbar.AdaptiveETA()]
    return progressbar.ProgressBar(initial_value=start, widgets=widgets,
                                   max_value=progressbar.UnknownLength if total is None else total)
