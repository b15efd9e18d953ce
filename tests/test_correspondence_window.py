"""``try_correspondence.py`` as it is used: by mouse on a virtual screen, and without one."""
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageGrab

from dataset.image_io import read_frame
from inference.correspondence_viewer import correspond, draw_source, draw_target
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = [sys.executable, str(ROOT / "try_correspondence.py"), "--model", str(LITE_WEIGHTS)]
PICTURES = [ROOT / "examples/00015.jpg", ROOT / "examples/00020.jpg"]


def expected(source, target, points):
    heat = correspond(load_network(LITE_WEIGHTS), source, target).heat_map(points)
    return draw_source(source, points), draw_target(target, heat)


def without_display():
    return {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}


def test_views_are_written_without_a_display(tmp_path):
    run = subprocess.run([*SCRIPT, "--points", "200,150", "90,60", "--output", "views"], cwd=tmp_path,
                         env=without_display(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    source, target = (read_frame(path) for path in PICTURES)
    for name, view in zip(("source", "target"), expected(source, target, [(200, 150), (90, 60)]), strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"views/{name}.png")), view)
    assert re.search(r"^200,150 -> \d+,\d+$", run.stdout, re.M)


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "no display to open windows on; name points instead"),
    (("--points", "9999,3"), "--points 9999,3: outside of"),
    (("--points", "1;3"), "is not a point"),
    (("--points", "1,3", "--src_image", "nothing.jpg"), "nothing.jpg: no such file"),
])
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, arguments, message):
    run = subprocess.run([*SCRIPT, *arguments], cwd=tmp_path, env=without_display(), capture_output=True, text=True,
                         check=False)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def screen():
    """A virtual screen with the program's windows on it: a function that runs xdotool, and the screen's name."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Xvfb and xdotool")
    name = f":{90 + os.getpid() % 900}"
    server = subprocess.Popen(["Xvfb", name, "-screen", "0", "1200x400x24"], stderr=subprocess.DEVNULL)
    yield name
    server.kill()
    server.wait()


def test_the_heat_map_follows_the_mouse(screen, tmp_path):
    env = {**without_display(), "DISPLAY": screen, "PYTHONUNBUFFERED": "1"}
    program = subprocess.Popen([*SCRIPT, "--output", "views"], cwd=tmp_path, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def xdotool(*arguments):
        return subprocess.run(["xdotool", *map(str, arguments)], env=env, capture_output=True, text=True,
                              check=False).stdout.split()

    def window(title):
        deadline = time.time() + 60
        while time.time() < deadline:
            found = xdotool("search", "--name", f"^{title}$")
            if found:
                return found[-1]
            assert program.poll() is None, program.communicate()
            time.sleep(0.2)
        raise AssertionError(f"no window {title}")

    def shown(title):
        """What is on the screen where the window's picture is."""
        place = dict(line.split("=") for line in xdotool("getwindowgeometry", "--shell", window(title)) if "=" in line)
        grabbed = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB"))
        x, y = int(place["X"]), int(place["Y"])
        return grabbed[y:y + int(place["HEIGHT"]), x:x + int(place["WIDTH"])]

    def soon(title, picture):
        """Whether the window comes to show the picture (which it may have a border around)."""
        deadline, best = time.time() + 60, 255.0
        while time.time() < deadline:
            view = shown(title)
            for top in range(max(view.shape[0] - picture.shape[0], 0) + 1):
                for left in range(max(view.shape[1] - picture.shape[1], 0) + 1):
                    part = view[top:top + picture.shape[0], left:left + picture.shape[1]]
                    if part.shape == picture.shape:
                        best = min(best, np.abs(part.astype(int) - picture).mean())
            if best < 1:
                return True
            time.sleep(0.2)
        raise AssertionError(f"{title} differs by {best}")

    source, target = (read_frame(path) for path in PICTURES)
    try:
        window("Source"), window("Target")
        assert soon("Source", source)
        xdotool("mousemove", "--window", window("Source"), 200, 150, "click", 1)
        assert soon("Target", expected(source, target, [(200, 150)])[1])
        xdotool("mousemove", "--window", window("Source"), 100, 100, "mousedown", 1)
        xdotool("mousemove", "--window", window("Source"), 300, 200, "sleep", 0.5, "mouseup", 1)
        assert soon("Target", expected(source, target, [(300, 200)])[1])
        xdotool("key", "--window", window("Source"), "s")
        assert "saved: views/source.png" in program.stdout.readline()
        assert np.array_equal(np.asarray(Image.open(tmp_path / "views/target.png")),
                              expected(source, target, [(300, 200)])[1])
        xdotool("mousemove", "--window", window("Source"), 250, 100, "click", 3)
        assert soon("Source", target)
        xdotool("key", "--window", window("Source"), "Escape")
        assert program.wait(timeout=20) == 0
    finally:
        program.kill()
