"""Web pages that come where a file should."""
from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlencode


class Page(HTMLParser):
    """A page's title, and where its form leads that asks whether to go on (empty: it has none)."""

    def __init__(self, text: str):
        super().__init__()
        self.title, self.confirmation = "", ""
        self._in_title, self._action, self._fields = False, "", {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_title = tag == "title"
        if tag == "form":
            self._action, self._fields = values.get("action", ""), {}
        elif tag == "input" and values.get("name"):
            self._fields[values["name"]] = values.get("value", "")
            if "confirm" in self._fields:
                self.confirmation = f"{self._action}?{urlencode(self._fields)}"

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += " ".join(data.split())
