"""Google Drive, played by a server on this machine."""
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from util.drive import Drive

QUOTA = "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>Sorry</body></html>"
ASK = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form action="/search" method="get"><input name="q"></form><form id="download-form" action="{address}" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{id}">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a&amp;b"></form></body></html>"""


class Provider:
    """Serves ``files`` (bytes by id).

    Attributes:
        ways: by id, how the next requests are answered, the last one for all that follow: "whole", "cut" (after half
            of what was asked for), "reset" (before the headers), "no ranges", "quota", "quota disguised", "ask",
            "longer" (says so, but is not), "slow", "fault", "missing", "no size", "no size cut", "forgets the range".
        asked: (id, the byte from which) of every request.
    """

    def __init__(self):
        self.files, self.ways, self.asked = {}, {}, []
        handler = type("Handler", (_Handler,), {"provider": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}/download"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def drive(self, **options):
        return Drive(self.address, **{"tries": 3, "pause": 0, "timeout": 5, **options})

    def starts(self, drive_id):
        return [start for asked, start in self.asked if asked == drive_id]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def page(self, text, status=200, kind="text/html; charset=utf-8"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        self.close_connection = True
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.provider.asked.append((query["id"], start))
        ways = self.provider.ways.get(query["id"], ["whole"])
        way = ways.pop(0) if len(ways) > 1 else ways[0]
        content = self.provider.files.get(query["id"])
        if way == "reset":
            return
        if content is None or way == "missing":
            return self.page("<html><title>Not found</title></html>", 404)
        if way.startswith("quota"):
            return self.page(QUOTA, kind="application/octet-stream" if "disguised" in way else "text/html")
        if way == "fault":
            return self.page("oops", 503)
        if way == "ask" and query.get("uuid") != "a&b":
            return self.page(ASK.format(address=self.provider.address, id=query["id"]))
        self.file(content, 0 if way == "no ranges" else start, bool(wanted) and way != "no ranges", way)

    def file(self, content, start, ranged, way):
        total = len(content) + 1000 * (way == "longer")
        if ranged and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Type", "application/octet-stream")
        if ranged and way != "forgets the range":
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if not way.startswith("no size"):
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        rest = content[start:]
        if "cut" in way:
            rest = rest[:(len(rest) + 1) // 2]
        if way == "slow":
            for begin in range(0, len(rest), 4096):
                self.wfile.write(rest[begin:begin + 4096])
                time.sleep(0.02)
        else:
            self.wfile.write(rest)
