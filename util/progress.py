"""Progress bars."""
from __future__ import annotations

import progressbar


def frames_bar(total: int, what: str = "frames") -> progressbar.ProgressBar:
    """A bar with a rate and the time left, on standard error."""
    widgets = [progressbar.SimpleProgress(), f" {what} ", progressbar.Percentage(), " ", progressbar.Bar(), " ",
               progressbar.AdaptiveTransferSpeed(unit=what), " ", progressbar.ETA()]
    return progressbar.ProgressBar(max_value=total, widgets=widgets)


def training_bar(start: int, stop: int, samples: int) -> progressbar.ProgressBar:
    """A bar over iterations with samples/s and the time left, on standard error."""
    class Rate(progressbar.widgets.WidgetBase):
        def __call__(self, progress: progressbar.ProgressBar, data: dict) -> str:
            seconds = data["total_seconds_elapsed"]
            return f"{progress.value * samples / seconds:.1f} samples/s" if seconds else ""

    widgets = [f"from {start} " if start else "", progressbar.SimpleProgress(), " iterations ", progressbar.Bar(), " ",
               Rate(), " ", progressbar.AdaptiveETA()]
    return progressbar.ProgressBar(max_value=max(stop - start, 0), widgets=widgets)
