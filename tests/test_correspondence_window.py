"""try_correspondence.py: without a display, and by mouse on a virtual screen."""
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT, command
from PIL import Image, ImageGrab

import try_correspondence
from dataset.image_io import read_frame
from inference.correspondence_viewer import correspond, draw_source, draw_target
from model.checkpoint import load_network
from model.defaults import LITE_WEIGHTS
from util.cli import InputError

IMAGES = [ROOT / "examples/00015.jpg", ROOT / "examples/00020.jpg"]


@pytest.fixture(scope="module")
def network():
    return load_network(LITE_WEIGHTS)


def expected(network, source, target, points):
    heat = correspond(network, source, target).heat_map(points)
    return draw_source(source, points), draw_target(target, heat)


@pytest.fixture
def without_display(monkeypatch, tmp_path):
    """Calls main() in a folder of its own, without a display."""
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["", "--model", "lite", "--device", "cpu", *arguments])
        try_correspondence.main()
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return call


def test_views_are_written_without_a_display_and_never_replaced(without_display, network, tmp_path, capsys):
    without_display("--points", "200,150", "90,60", "--output", "views")
    assert re.search(r"^200,150 -> \d+,\d+\n90,60 -> .*\nviews: views/source.png views/target.png$",
                     capsys.readouterr().out, re.MULTILINE)
    without_display("--points", "20,15", "--output", "views")
    assert "views: views/source_2.png views/target_2.png" in capsys.readouterr().out
    source, target = map(read_frame, IMAGES)
    for suffix, points in (("", [(200, 150), (90, 60)]), ("_2", [(20, 15)])):
        for name, view in zip(("source", "target"), expected(network, source, target, points), strict=True):
            assert np.array_equal(np.asarray(Image.open(tmp_path / f"views/{name}{suffix}.png")), view)


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "no display to open windows on; use --points"),
    (("--points", "9999,3"), "--points 9999,3: outside "),
    (("--points", "1,3", "--src_image", "nothing.jpg"), "nothing.jpg: no such file"),
])
def test_bad_input_gets_one_line_and_writes_nothing(without_display, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        without_display(*arguments)
    assert not list(tmp_path.iterdir())


def test_points_are_pairs_of_numbers(without_display, capsys):
    with pytest.raises(SystemExit):
        without_display("--points", "1;3")
    assert "'1;3' is not a point, such as 160,120" in capsys.readouterr().err


@pytest.fixture
def screen():
    """A virtual screen with the program's windows on it: a function that runs xdotool, and the screen's name."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Xvfb and xdotool")
    server = subprocess.Popen(["Xvfb", "-displayfd", "1", "-screen", "0", "1200x400x24", "-noreset"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield f":{server.stdout.readline().strip()}"
    server.kill()
    server.communicate()


@pytest.mark.slow
def test_the_heat_map_follows_the_mouse(screen, network, tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "WAYLAND_DISPLAY"} | {"DISPLAY": screen}
    program = None

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
        """The part of the screen that the window covers."""
        place = dict(line.split("=") for line in xdotool("getwindowgeometry", "--shell", window(title)) if "=" in line)
        grabbed = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB"))
        x, y, width, height = (int(place.get(name, 0)) for name in ("X", "Y", "WIDTH", "HEIGHT"))    # none: it has gone
        return grabbed[y:y + height, x:x + width]

    def soon(title, image, seconds=60):
        """Wait until the window shows the image (it may have a border)."""
        window(title)                   # starting the program does not count
        deadline, best = time.time() + seconds, 255.0
        while time.time() < deadline:
            view = shown(title)
            for top in range(max(view.shape[0] - image.shape[0], 0) + 1):
                for left in range(max(view.shape[1] - image.shape[1], 0) + 1):
                    part = view[top:top + image.shape[0], left:left + image.shape[1]]
                    if part.shape == image.shape:
                        best = min(best, np.abs(part.astype(int) - image).mean())
            if best < 1:
                return True
            time.sleep(0.2)
        raise AssertionError(f"{title} differs by {best}")

    source, target = map(read_frame, IMAGES)
    try:
        for attempt in range(5):        # on a busy screen, Qt at times never paints a window that it opened
            program = subprocess.Popen(command("try_correspondence.py", "--model", "lite", "--output", "views"),
                                       cwd=tmp_path, env=env, text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                assert soon("Source", source, 10)
                assert soon("Target", (target * 0.5).astype(np.uint8), 10)
                break
            except AssertionError:
                if attempt == 4:
                    raise
                program.kill()
                program.communicate()
        xdotool("mousemove", "--window", window("Source"), 200, 150, "click", 1)
        assert soon("Target", expected(network, source, target, [(200, 150)])[1])
        xdotool("mousemove", "--window", window("Source"), 100, 100, "mousedown", 1)
        xdotool("mousemove", "--window", window("Source"), 300, 200, "sleep", 0.5, "mouseup", 1)
        assert soon("Target", expected(network, source, target, [(300, 200)])[1])
        xdotool("key", "--window", window("Source"), "s")
        assert "saved: views/source.png views/target.png" in program.stdout.readline()
        assert np.array_equal(np.asarray(Image.open(tmp_path / "views/target.png")),
                              expected(network, source, target, [(300, 200)])[1])
        xdotool("mousemove", "--window", window("Source"), 250, 100, "click", 3)
        assert soon("Source", target)
        xdotool("key", "--window", window("Source"), "Escape")
        assert program.wait(timeout=20) == 0
    finally:
        program.kill()
