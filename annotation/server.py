"""The server of the page: HTTP routes, and the checks that keep other sites and users out."""
from __future__ import annotations

import argparse
import json
import mimetypes
import os
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import numpy as np
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from annotation.export import KINDS
from annotation.frames import jpeg
from annotation.grabcut import grabcut
from annotation.jobs import Jobs
from annotation.project import Project
from util.cli import InputError, user_message

# The registry of Windows may have other types, with which the page does not load.
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("text/css", ".css")

STATIC = Path(__file__).parent / "static"
MAX_JSON = 2 ** 16              # bytes of a request
SESSION_SECONDS = 10            # without a request, after which another browser window may take over
HEADERS = {"Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
           "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
           "Cross-Origin-Resource-Policy": "same-origin"}


class Json(JSONResponse):
    """JSON in ASCII, which can contain file names that are not UTF-8."""

    def render(self, content: object) -> bytes:
        """Return the body."""
        return json.dumps(content).encode()


class Guard:
    """Refuses requests that do not come from the page: wrong host (DNS rebinding), origin (other sites) or token."""

    def __init__(self, app: ASGIApp, port: int, token: str):
        self.app, self.token = app, token
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request and pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        token = scope["path"].strip("/").partition("/")[0]
        refused = None
        if host not in self.hosts or origin not in (None, f"http://{host}"):
            refused = "This page can only be used on the computer that annotate.py runs on.\n"
        elif not secrets.compare_digest(token.encode(), self.token.encode()):
            refused = "Open the address that annotate.py printed. It contains the key to the page.\n"

        async def send_with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)
        app = self.app if refused is None else PlainTextResponse(refused, 403)
        await app(scope, receive, send_with_headers)


class Session:
    """The browser window that the annotation is open in. Only one can edit at a time."""

    def __init__(self):
        self._name, self._seen = "", 0.0
        self._lock = threading.Lock()

    def open(self, name: str, take: bool) -> bool:
        """Whether the window may edit: it did before, no other one was active lately, or it takes over."""
        with self._lock:
            if not take and name != self._name and time.monotonic() - self._seen < SESSION_SECONDS:
                return False
            self._name, self._seen = name, time.monotonic()
            return True

    def check(self, name: str) -> None:
        """Note the activity of a window; raises HTTPException 409 if another one has taken over."""
        with self._lock:
            if not name or name != self._name:
                raise HTTPException(409, "This clip is open in another window.")
            self._seen = time.monotonic()


def create_app(project: Project, jobs: Jobs, info: dict, port: int, token: str) -> Starlette:
    """The application of the page.

    Args:
        info: what the page shows of the clip and the network.
        port: of the server; requests to another port are refused.
        token: first part of the path of all addresses.
    """
    frames, session, one_grabcut = project.frames, Session(), anyio.CapacityLimiter(1)
    pixels = frames.height * frames.width

    def route(path: str, method: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        async def checked(request: Request) -> Response:
            session.check(request.headers.get("x-session", ""))
            return await handler(request)
        return Route(path, checked, methods=[method])

    def index_of(request: Request) -> int:
        text = request.path_params["index"]
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(frames.names)):
            raise HTTPException(404, f"there is no frame {text[:10]}")
        return int(text)

    async def label_body(request: Request) -> np.ndarray:
        content = await _body(request, pixels)
        if len(content) != pixels:
            raise HTTPException(400, f"the mask has {len(content)} pixels instead of {pixels}")
        return np.frombuffer(content, np.uint8).reshape(frames.height, frames.width)

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def open_session(request: Request) -> Response:
        content = await _json(request, {"id": (str,), "take": (bool,)})
        if not content["id"] or not session.open(content["id"], content["take"]):
            raise HTTPException(409, "This clip is open in another window.")
        return Json({})

    async def clip(request: Request) -> Response:
        palette = np.frombuffer(project.palette, np.uint8).reshape(256, 3).tolist()
        return Json({**info, "palette": palette, "width": frames.width, "height": frames.height})

    async def state(request: Request) -> Response:
        since = request.query_params.get("since", "0")[:18]
        content = await run_sync(_state, project, jobs, int(since) if since.isdecimal() else 0)
        return Json(content)

    async def wait_for_exact(request: Request) -> None:
        while not frames.is_exact(index_of(request)):           # raises an error if the video proves to be shorter
            await anyio.sleep(0.05)
        index_of(request)

    async def frame(request: Request) -> Response:
        index = index_of(request)
        kind = request.query_params.get("kind", "exact")
        if kind != "exact":
            preview = await run_sync(frames.preview, index, kind == "sought")
            if preview is not None:
                return Response(preview, media_type="image/jpeg")
        await wait_for_exact(request)
        return Response(await run_sync(lambda: jpeg(frames.exact(index))), media_type="image/jpeg")

    async def labels(request: Request) -> Response:
        shown = await run_sync(project.labels, index_of(request))
        return Response(shown.tobytes(), media_type="application/octet-stream")

    async def save(request: Request) -> Response:
        index = index_of(request)
        mask = np.zeros((frames.height, frames.width), np.uint8)
        if request.method == "PUT":
            mask = await label_body(request)
        await run_sync(project.save_mask, index, mask)
        jobs.stop_if_stale()
        return Json({"version": project.version})

    async def objects(request: Request) -> Response:
        content = await _json(request, [{"label": (int,), "name": (str,)}])
        await run_sync(project.rename, {entry["label"]: entry["name"] for entry in content})
        return Json({"version": project.version})

    async def segment(request: Request) -> Response:
        index, box = index_of(request), request.query_params.get("box")
        hints = await label_body(request)
        try:
            corners = tuple(map(int, box.split(","))) if box else None
        except ValueError:
            corners = ()
        if corners is not None and len(corners) != 4:
            raise HTTPException(400, "the box needs four corners")
        await wait_for_exact(request)
        mask = await run_sync(lambda: grabcut(frames.exact(index), hints, corners), limiter=one_grabcut)
        return Response(mask.tobytes(), media_type="application/octet-stream")

    async def propagate(request: Request) -> Response:
        content = await _json(request, {"direction": (str,), "until": (int, type(None))})
        if content["direction"] not in ("forward", "backward", "both"):
            raise HTTPException(400, "the direction is forward, backward or both")
        if content["until"] is not None and not 0 <= content["until"] < len(frames.names):
            raise HTTPException(400, f"there is no frame {content['until']}")
        jobs.propagate(content["direction"], content["until"])
        return Json({}, 202)

    async def stop(request: Request) -> Response:
        jobs.stop()
        return Json({})

    async def export(request: Request) -> Response:
        kinds = (await _json(request, {"kinds": (list,)}))["kinds"]
        if not kinds or not all(kind in KINDS for kind in kinds):
            raise HTTPException(400, f"choose what to export: {', '.join(KINDS)}")
        jobs.export(kinds)
        return Json({}, 202)

    routes = [Route("/", page), Route("/session", open_session, methods=["POST"]),
              Mount("/static", StaticFiles(directory=STATIC)),
              route("/clip", "GET", clip), route("/state", "GET", state), route("/frames/{index}", "GET", frame),
              route("/labels/{index}", "GET", labels), route("/labels/{index}", "PUT", save),
              route("/labels/{index}", "DELETE", save), route("/objects", "PUT", objects),
              route("/grabcut/{index}", "POST", segment), route("/propagate", "POST", propagate),
              route("/stop", "POST", stop), route("/export", "POST", export)]
    app = Starlette(routes=[Mount(f"/{token}", routes=routes)], exception_handlers={
        InputError: lambda request, error: Json({"error": str(error)}, 400),
        OSError: lambda request, error: Json({"error": user_message(error)}, 507),
        HTTPException: lambda request, error: Json({"error": error.detail}, error.status_code),
        ClientDisconnect: lambda request, error: Response(status_code=400)})
    app.add_middleware(Guard, port=port, token=token)
    return app


def propagate_command(args: argparse.Namespace, folder: Path) -> str:
    """The command that gives the same masks as the page, if both passes have been propagated."""
    source = ["--images", args.images] if args.video is None else ["--video", args.video]
    flags = [] if args.size is None else ["--size", args.size]
    flags += [f"--{name}" for name in ("use_km", "no_km", "no_top", "amp", "tf32") if getattr(args, name)]
    flags += ["--no_amp"] if args.amp is False else []
    flags += [] if args.device is None else ["--device", args.device]
    for name in ("top_k", "mem_every"):
        flags += [] if getattr(args, name) is None else [f"--{name}", getattr(args, name)]
    words = ["python", "propagate.py", source[0], source[1].absolute(), "--masks", folder / "masks", "--output",
             folder / "propagated", "--direction", "both", "--model", args.model.absolute(), *flags,
             "--max_memory_frames", args.max_memory_frames]
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)(map(str, words))


def _state(project: Project, jobs: Jobs, since: int) -> dict:
    """What changed after a version of the project. The number of frames is final when the clip is scanned."""
    frames, job, version = project.frames, jobs.job, project.version
    return {"version": version, "frames": len(frames.names), "indexed": frames.progress, "error": frames.problem,
            "objects": [{"label": label, "name": name} for label, name in project.names.items()],
            "job": job and job.as_dict(), "changed": project.records(since)}


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request; raises HTTPException 413 if it is longer than ``limit`` bytes."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise HTTPException(413, f"the request has more than {limit} bytes")
    return bytes(content)


async def _json(request: Request, expected: dict | list) -> dict | list:
    """The body of a request as JSON; raises HTTPException 400 if it has not the expected names with these types."""
    try:
        content = json.loads(await _body(request, MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the request is not JSON") from error
    if isinstance(expected, list) and not isinstance(content, list):
        raise HTTPException(400, "the request is not a list")
    for entry in content if isinstance(expected, list) else [content]:
        shape = expected[0] if isinstance(expected, list) else expected
        if not isinstance(entry, dict) or not all(type(entry.get(name)) in kinds for name, kinds in shape.items()):
            raise HTTPException(400, f"the request needs {', '.join(shape)}")
    return content
