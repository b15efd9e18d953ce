"""Progress bars."""
from __future__ import annotations

import progressbar


def frames_bar(total: int, what: str = "frames") -> progressbar.ProgressBar:
    """A bar with a rate and the time left, on standard error."""
    widgets = [progressbar.SimpleProgress(), f" {what} ", progressbar.Percentage(), " ", progressbar.Bar(), " ",
               progressbar.AdaptiveTransferSpeed(unit=what), " ", progressbar.ETA()]
    return progressbar.ProgressBar(max_value=total, widgets=widgets)
