"""Annotate your own clip in the browser: mark objects on a frame, propagate, correct, and export.

  python annotate.py --video clip.mp4
  python annotate.py --images frames/ --masks masks/ --output output/my_annotation

The page runs on this computer and cannot be reached from others. Everything is saved in the output folder as soon as it
is drawn; the same command resumes there. --masks starts with existing masks, named after their frames as for
propagate.py.

Output: DIR/masks/<frame>.png, the masks that you made, as propagate.py --masks reads them; DIR/predictions, the results
so far; DIR/export, what you export: palette PNGs, black-and-white masks, cut-outs, or an overlay video.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from inference.arguments import add_arguments
from util.cli import InputError, extras_for, run

MAX_MEMORY_FRAMES = 20          # so that long clips need bounded memory and time per frame


def port(text: str) -> int:
    """The argument type of TCP ports; 0 is any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", type=Path, metavar="FILE", help="the clip as a video file")
    source.add_argument("--images", type=Path, metavar="DIR", help="the clip as a folder of images")
    parser.add_argument("--masks", type=Path, metavar="PATH",
                        help="a mask, or a folder of masks named after their frames, to start with")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder of the annotation (default: output/<name of the clip>_annotation in the current "
                             "folder)")
    parser.add_argument("--port", type=port, default=0, metavar="N", help="port of the page (default: any free one)")
    parser.add_argument("--no_browser", action="store_true", help="print the address of the page, do not open it")
    add_arguments(parser, size=480, max_memory_frames=MAX_MEMORY_FRAMES)
    return parser.parse_args()


def main() -> None:
    args = parse()
    with extras_for("annotate.py"):
        import av  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    import secrets
    import socket
    import webbrowser
    from contextlib import closing

    from annotation.frames import ClipFrames
    from annotation.jobs import Jobs, Worker
    from annotation.project import Project
    from annotation.server import create_app, propagate_command
    from util.files import lock, prepare_folder

    worker = Worker(args)
    frames = ClipFrames(args.video, args.images)
    folder = (args.output or Path("output") / f"{frames.name}_annotation").absolute()
    variant, device, settings = worker.wait_until_ready()
    prepare_folder(folder)
    with lock(folder), closing(frames), socket.socket() as listener:
        try:
            if os.name != "nt":             # there, it lets two servers have one port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", args.port))
            listener.listen()               # so that the page can be opened before the server accepts
        except OSError as error:
            raise InputError(f"--port {args.port}: {error.strerror}; choose another one") from error
        project = Project(folder, frames, args.masks)
        project.set_settings(settings)
        frames.scan(folder, project.clip_scanned)
        number, token = listener.getsockname()[1], secrets.token_urlsafe(16)
        info = {"name": frames.name, "fps": frames.reader.fps if args.video else None, "model": variant,
                "device": device, "folder": str(folder), "command": propagate_command(args, folder)}
        address = f"http://127.0.0.1:{number}/{token}/"
        print(f"network: {variant} ({args.model}), {device}\n"
              f"annotation: {folder}\n"
              f"page: {address}\n"
              f"Stop with Ctrl-C. Everything is saved as soon as it is drawn.")
        if not args.no_browser:
            webbrowser.open(address)
        with closing(Jobs(project, worker)) as jobs:
            config = uvicorn.Config(create_app(project, jobs, info, number, token), log_level="error",
                                    timeout_graceful_shutdown=1, lifespan="off")
            uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    run(main)
