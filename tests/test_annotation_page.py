"""annotate.py in a real Chromium: from a box to exported masks, with a mouse and with touch."""
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from commands import command
from test_annotation_server import Server

from dataset.image_io import read_mask
from dataset.synthetic import write_clip

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEIGHT, WIDTH, FRAMES = 240, 320, 10
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
pytest.importorskip("uvicorn", reason="annotate.py needs requirements-extras.txt")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", frames=FRAMES, height=HEIGHT, width=WIDTH, objects=1, seed=3)
    return tmp_path / "clip"


@pytest.fixture
def server(clip, tmp_path):
    server = Server("--images", clip / "frames", "--output", tmp_path / "annotation")
    yield server
    server.process.kill()
    server.process.wait()
    server.process.stdout.close()


class Page:
    """The page of a server in a browser window; positions are pixels of the frame."""

    def __init__(self, browser, server, **options):
        self.page = browser.new_context(**options).new_page()
        self.errors = []
        self.page.on("console", lambda message: message.type == "error" and "409" not in message.text
                     and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"http://127.0.0.1:{server.port}/{server.token}/")
        self.page.wait_for_selector('#take:visible, #stage[data-exact="true"]')
        if self.page.is_visible("#take"):       # `Server` has a session of its own, which ends after some seconds
            self.page.click("#take")
        self.page.wait_for_selector('#stage[data-exact="true"][data-labels="true"]')
        self.server = server

    def screen(self, x, y):
        box = self.page.locator("#frame").bounding_box()
        return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT

    def drag(self, *points):
        self.page.mouse.move(*self.screen(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.screen(*point), steps=8)
        self.page.mouse.up()

    def saved(self):
        """Wait until everything is saved."""
        self.page.wait_for_timeout(50)
        self.page.wait_for_selector('#busy', state="hidden")
        self.page.wait_for_selector('#status[data-saved="true"]')

    def wait(self, condition):
        """Wait for a condition in Python: the page's security policy forbids to evaluate strings."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            self.page.wait_for_timeout(50)

    def width(self):
        return self.page.locator("#frame").bounding_box()["width"]

    def go_to(self, index):
        self.page.fill("#frame-number", str(index))
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(f'#stage[data-frame="{index}"][data-exact="true"][data-labels="true"]')


def mask_on_disk(tmp_path, index):
    path = tmp_path / f"annotation/masks/{index:05d}.png"
    return read_mask(path) if path.exists() else None


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def box_around(mask, margin=6):
    y, x = np.nonzero(mask)
    return ((max(1, x.min() - margin), max(1, y.min() - margin)),
            (min(WIDTH - 1, x.max() + margin), min(HEIGHT - 1, y.max() + margin)))


def test_from_a_box_to_exported_masks(browser, server, clip, tmp_path):
    page = Page(browser, server, viewport={"width": 1280, "height": 800})
    truth = [read_mask(clip / f"masks/{index:05d}.png") for index in range(FRAMES)]
    page.drag(*box_around(truth[0]))
    page.saved()
    first = mask_on_disk(tmp_path, 0)
    assert iou(first > 0, truth[0] > 0) > 0.7

    page.page.click("#tool-brush")
    page.drag((10, 10), (60, 10))
    page.saved()
    painted = mask_on_disk(tmp_path, 0)
    assert painted[10, 35] == 1
    assert (painted[first > 0] == 1).all()
    page.page.keyboard.press("Control+z")
    page.saved()
    assert (mask_on_disk(tmp_path, 0) == first).all()
    page.page.click("#redo")
    page.saved()
    assert (mask_on_disk(tmp_path, 0) == painted).all()
    page.page.click("#undo")
    page.saved()

    page.page.click("#propagate")
    forward = tmp_path / "annotation/predictions/forward"
    page.wait(lambda: len(list(forward.glob("*.png"))) >= 3)
    with server.frozen():
        page.wait(lambda: int(page.page.locator("#stage").get_attribute("data-frame")) >= 2)       # it follows
        page.page.click("#stop")
    page.page.wait_for_selector("#propagate", state="visible")
    assert 3 <= len(list(forward.iterdir())) < FRAMES

    page.go_to(2)
    page.page.click("#tool-eraser")
    y, x = np.nonzero(truth[2])
    page.drag((x.mean(), y.mean()), (x.mean() + 4, y.mean()))
    page.saved()
    corrected = mask_on_disk(tmp_path, 2)
    assert corrected[int(y.mean()), int(x.mean())] == 0
    assert corrected.any()
    page.page.click("#propagate")
    page.page.wait_for_selector("#stop", state="visible")
    page.page.wait_for_selector("#propagate", state="visible", timeout=60_000)
    page.page.click("#propagate")               # it may end before the page sees it run
    page.page.wait_for_selector(".notice:has-text('All frames are up to date')")
    page.page.click("#export")
    page.page.click("#export-start")
    page.page.wait_for_selector("#export-text:has-text('written to')")
    line = page.page.locator("#command").inner_text()

    page.page.reload()
    page.page.wait_for_selector('#stage[data-exact="true"][data-labels="true"]')
    page.go_to(2)
    assert page.page.locator("#object-list > *").count() == 1
    assert page.errors == []
    subprocess.run(command(*line.split()[1:]), check=True, capture_output=True)
    for index in range(FRAMES):
        expected = read_mask(tmp_path / f"annotation/propagated/{index:05d}.png")
        assert (read_mask(tmp_path / f"annotation/export/masks/{index:05d}.png") == expected).all()
    assert iou(expected > 0, truth[-1] > 0) > 0.5


def test_polygon_scribble_objects_and_zoom(browser, server, clip, tmp_path):
    page = Page(browser, server, viewport={"width": 1280, "height": 800})
    page.page.click("#tool-polygon")
    for point in [(20, 20), (80, 20), (80, 60), (20, 60)]:
        page.page.mouse.click(*page.screen(*point))
    page.page.keyboard.press("Enter")
    page.saved()
    mask = mask_on_disk(tmp_path, 0)
    assert abs((mask == 1).sum() - 60 * 40) < 150
    assert mask[40, 50] == 1
    page.page.click("#add-object")
    page.page.click("#tool-brush")
    before = page.width()
    page.page.mouse.move(*page.screen(200, 150))
    page.page.mouse.wheel(0, -400)
    page.wait(lambda: page.width() > before * 1.2)
    page.drag((195, 150), (205, 150))           # at the same pixels of the frame, though it is zoomed
    page.saved()
    mask = mask_on_disk(tmp_path, 0)
    assert mask[150, 200] == 2
    assert mask[40, 50] == 1
    page.page.keyboard.press("f")
    page.page.keyboard.press("?")
    assert page.page.locator("#help-dialog").is_visible()
    page.page.keyboard.press("Escape")
    page.page.click("#tool-scribble")
    truth = read_mask(clip / "masks/00000.png")
    y, x = np.nonzero(truth)
    page.drag((x.mean() - 8, y.mean()), (x.mean() + 8, y.mean()))
    page.saved()
    assert mask_on_disk(tmp_path, 0)[int(y.mean()), int(x.mean())] == 2
    page.page.click("#tool-box")
    page.drag((230, 180), (290, 220))           # far from object 2, which is selected
    page.saved()
    page.page.wait_for_selector(".notice:has-text('For another object: Undo, then Add object')")
    page.page.click("#clear-frame")
    page.saved()
    assert mask_on_disk(tmp_path, 0) is None
    assert page.page.locator("#clear-frame").is_hidden()
    page.page.click("#undo")
    page.saved()
    assert (mask_on_disk(tmp_path, 0) == 1).any()
    assert page.errors == []


def test_undo_and_propagation_leave_no_old_labels(browser, server, clip, tmp_path):
    server.save(0, read_mask(clip / "masks/00000.png").astype(np.uint8))
    page = Page(browser, server, viewport={"width": 1280, "height": 800})
    folder = tmp_path / "annotation/predictions/forward"

    def prediction(index):
        return read_mask(folder / f"{index:05d}.png")

    page.page.select_option("#direction", "forward")
    page.page.click("#propagate")
    page.page.wait_for_selector(f'#stage[data-frame="{FRAMES - 1}"][data-labels="true"]')        # it follows
    page.page.wait_for_selector("#propagate", state="visible")
    page.go_to(5)
    page.page.click("#tool-eraser")
    y, x = np.nonzero(prediction(5))
    page.drag((x.min(), y.min() - 3), (x.min(), y.max() + 3))       # what remains has a smaller bounding box
    page.saved()
    corrected = mask_on_disk(tmp_path, 5)
    assert corrected.any()
    assert not corrected[:, x.min()].any()
    with page.page.expect_response(lambda response: response.url.endswith("labels/5")
                                   and response.request.method == "GET"):
        page.page.click("#clear-frame")
    page.saved()
    page.page.click("#undo")
    page.saved()
    assert (mask_on_disk(tmp_path, 5) == corrected).all()

    page.page.click("#tool-brush")
    for row in range(180, 240, 6):
        page.drag((20, row), (300, row))
    page.saved()
    page.go_to(7)
    requests, before = [], prediction(7)
    page.page.route("**/labels/7", lambda route: route.continue_() if route.request.method == "PUT" else
                    requests.append(route))
    page.page.evaluate("document.getElementById('follow').click()")
    with server.frozen():
        page.page.click("#propagate")
        page.page.wait_for_selector("#stop", state="visible")
    page.page.wait_for_selector("#propagate", state="visible")
    page.wait(lambda: requests)                 # the page has noticed that the labels of frame 7 have changed
    page.go_to(8)
    page.page.wait_for_timeout(2500)            # the page asks for the state every two seconds
    page.page.unroute("**/labels/7")            # answers the requests
    page.go_to(7)
    page.drag((300, 10), (310, 10))
    page.saved()
    painted, expected = mask_on_disk(tmp_path, 7), prediction(7)
    assert (before != expected).sum() > 1000
    assert painted[10, 305] == 1
    assert (painted[30:] == expected[30:]).all()
    assert page.errors == []


def test_touch_on_a_phone_in_the_dark(browser, server, tmp_path):
    page = Page(browser, server, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True,
                color_scheme="dark")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    page.page.tap("#tool-brush")
    page.page.tap("#add-object")
    devtools = page.page.context.new_cdp_session(page.page)

    def touch(kind, *points):
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [
            {"x": x, "y": y, "id": index} for index, (x, y) in enumerate(page.screen(*point) for point in points)]})
    touch("touchStart", (100, 100))
    touch("touchMove", (140, 100))
    touch("touchEnd")
    page.saved()
    painted = mask_on_disk(tmp_path, 0)
    assert painted[100, 120] == 1
    width = page.width()
    touch("touchStart", (150, 120), (170, 120))
    touch("touchMove", (100, 120), (220, 120))
    touch("touchEnd")
    page.wait(lambda: page.width() > width * 1.5)
    page.saved()
    assert (mask_on_disk(tmp_path, 0) == painted).all()         # two fingers do not draw
    assert page.errors == []


def test_a_second_window_and_a_server_that_has_gone(browser, server, tmp_path):
    first = Page(browser, server)
    second = browser.new_context().new_page()
    second.goto(f"http://127.0.0.1:{server.port}/{server.token}/")
    second.wait_for_selector("#take", state="visible")
    second.click("#take")
    second.wait_for_selector('#stage[data-exact="true"]')
    first.page.wait_for_selector("#take", state="visible")
    server.process.kill()
    second.wait_for_selector("#banner", state="visible", timeout=10_000)
    assert re.search("server is not running", second.locator("body").inner_text())
