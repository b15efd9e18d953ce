"""Files on Google Drive, by their ids.

This is urllib and not the package gdown that the published scripts use: gdown asks fixed addresses, so that what can go
wrong with a provider (cut connections, servers without ranges, pages instead of files) could not be played to it by a
server of the tests, and it names the files of unfinished downloads at random.
"""
from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import IO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin

from util.cli import first_line
from util.page import Page

PAGE_BYTES = 1 << 20           # of a page that are read at most
PAST_THE_END = 416             # the server's answer to a range that begins there


class Broken(Exception):
    """The connection failed in a way that may be over in a moment."""


class NotServed(Exception):
    """There is an answer, but it is no file; the message is what it says instead."""


class Answer(NamedTuple):
    """The bytes of a file from ``start`` on; ``total``: its size, None if the server does not say."""
    stream: IO[bytes]
    start: int
    total: int | None


@dataclass(frozen=True)
class Drive:
    """The provider.

    Attributes:
        address: that serves the files.
        tries: how often in a row a download may break without a byte gained.
        pause: seconds before the second try; longer before later ones.
        timeout: seconds without a byte after which a connection counts as broken.
    """
    address: str = "https://drive.usercontent.google.com/download"
    tries: int = 6
    pause: float = 2.0
    timeout: float = 60.0

    def open(self, drive_id: str, start: int = 0) -> Answer:
        """A file's bytes from ``start`` on, or from 0 if the server does not do that or the file is shorter.

        Raises:
            Broken: no connection, or the server has a fault.
            NotServed: the quota is used up, there is no such file, and the like.
        """
        query = urlencode({"id": drive_id, "export": "download", "confirm": "t"})
        response = self._ask(f"{self.address}?{query}", start)
        page = _page(response)
        if page is not None and page.confirmation:         # too large to be scanned for viruses: asks to go on
            response = self._ask(urljoin(self.address, page.confirmation), start)
            page = _page(response)
        if page is not None:
            raise NotServed(page.title.strip() or f"HTTP status {response.status}")
        if response.status == PAST_THE_END:
            response.close()
            if start and _number(response.headers, r"bytes \*/(\d+)") == start:
                return Answer(BytesIO(), start, start)
            if start:
                return self.open(drive_id)
        if response.status >= 400:
            response.close()
            raise NotServed(f"HTTP status {response.status}")
        if response.status != 206:
            return Answer(response, 0, response.length)
        begin = _number(response.headers, r"bytes (\d+)-")
        if begin is None:
            response.close()
            raise Broken("the server does not say which bytes it sends")
        return Answer(response, begin, _number(response.headers, r"bytes \d+-\d+/(\d+)"))

    def size(self, drive_id: str) -> int | None:
        """A file's size; None if the server does not say.

        Raises:
            Broken: no connection.
        """
        try:
            answer = self.open(drive_id)
        except NotServed:                                  # will be said when the file's turn comes
            return None
        answer.stream.close()
        return answer.total

    def _ask(self, url: str, start: int) -> HTTPResponse | HTTPError:
        request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0"})      # as gdown says
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except HTTPError as error:
            if error.status >= 500:
                error.close()
                raise Broken(f"the server answers with HTTP status {error.status}") from None
            return error
        except (OSError, HTTPException) as error:          # URLError is an OSError
            raise Broken(f"no connection ({first_line(getattr(error, 'reason', error))})") from None


def page_of(drive_id: str) -> str:
    """Where a person can download a file."""
    return f"https://drive.google.com/file/d/{drive_id}/view"


def _number(headers: Mapping[str, str], pattern: str) -> int | None:
    match = re.match(pattern, headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _page(response: HTTPResponse | HTTPError) -> Page | None:
    """The page, if the answer is one."""
    named = response.headers.get_content_type() == "text/html"
    try:
        if not named and (response.status != 200 or
                          not response.peek(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))):
            return None
        with response:
            return Page(response.read(PAGE_BYTES).decode(errors="replace"))
    except (OSError, HTTPException) as error:
        raise Broken(f"the connection broke ({first_line(error)})") from None
