"""annotate.py as a process: its HTTP interface, what it refuses, and that nothing drawn is lost when it is killed."""
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from commands import command
from test_annotation import write_video

from dataset.image_io import read_mask
from dataset.synthetic import draw_clip, write_clip

HEIGHT, WIDTH, FRAMES = 64, 96, 12
pytest.importorskip("uvicorn")


class Server:
    """A running annotate.py, and requests to it as the page makes them."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(command("annotate.py", "--no_browser", "--model", "lite", *arguments),
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.printed = ""
        while "page:" not in self.printed:
            line = self.process.stdout.readline()
            assert line, self.printed
            self.printed += line
        self.port, self.token = re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", self.printed).groups()
        self.headers = {"X-Session": "test"}
        assert self.request("POST", "session", {"id": "test", "take": True})[0] == 200

    def request(self, method, path, body=None, **headers):
        """The status and the content of the answer, JSON decoded."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self.port), timeout=60)
        if isinstance(body, dict | list):
            body = json.dumps(body)
        path = path if path.startswith("/") else f"/{self.token}/{path}"
        connection.request(method, path, body, {**self.headers, **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = response.headers.get("content-type") == "application/json"
        return response.status, json.loads(content) if is_json else content

    def labels(self, index):
        return np.frombuffer(self.request("GET", f"labels/{index}")[1], np.uint8).reshape(HEIGHT, WIDTH)

    def save(self, index, mask):
        status, answer = self.request("PUT", f"labels/{index}", mask.astype(np.uint8).tobytes())
        assert status == 200, answer

    def job(self, until=lambda job: job["status"] != "running"):
        """The job when it has ended, or when a condition holds."""
        for _ in range(1200):
            job = self.request("GET", "state?since=0")[1]["job"]
            if until(job):
                return job
            time.sleep(0.05)
        raise AssertionError(job)

    def kill_workers(self, number):
        workers = subprocess.run(["pgrep", "-P", str(self.process.pid), "-f", "spawn_main"], text=True,
                                 capture_output=True).stdout.split()
        subprocess.run(["kill", f"-{number:d}", *workers], check=True)

    @contextmanager
    def frozen(self):
        """The worker, which propagates, stands still during the block, so that it cannot finish too early."""
        self.kill_workers(signal.SIGSTOP)
        yield
        self.kill_workers(signal.SIGCONT)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=30)[0]
        return self.process.returncode, rest


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path / "clip", frames=FRAMES, height=HEIGHT, width=WIDTH, objects=2, seed=1)
    return tmp_path / "clip"


@pytest.fixture
def serve(clip, tmp_path):
    servers = []

    def serve(*arguments):
        servers.append(Server("--images", clip / "frames", "--output", tmp_path / "annotation", *arguments))
        return servers[-1]
    yield serve
    for server in servers:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()


@pytest.mark.slow
def test_propagate_correct_and_export_as_propagate_py(serve, clip, tmp_path):
    server = serve("--size", 160)
    server.save(0, read_mask(clip / "masks/00000.png"))
    assert server.request("POST", "propagate", {"direction": "forward", "until": 7})[0] == 202
    job = server.job()
    assert (job["status"], job["done"], job["total"], job["frame"]) == ("done", 8, 8, 7)
    assert job["rate"] > 0
    frames = {record["frame"]: record for record in server.request("GET", "state?since=0")[1]["changed"]}
    assert [frames[index]["state"] for index in range(8)] == ["current"] * 8
    assert frames[0]["annotated"]
    label, area, confidence, boundary = frames[5]["objects"][0]
    assert label == 1
    assert area == (server.labels(5) == 1).sum()
    assert 0 < boundary <= confidence <= 1
    server.save(5, read_mask(clip / "masks/00005.png"))
    server.request("POST", "propagate", {"direction": "both", "until": None})
    job = server.job()
    assert job["status"] == "done"
    assert job["total"] == FRAMES - 5 + 6       # forward only from the corrected frame on
    assert server.request("POST", "export", {"kinds": ["masks"]})[0] == 202
    assert server.job()["message"] == f"written to {tmp_path / 'annotation/export'}"
    line = server.request("GET", "clip")[1]["command"].split()
    subprocess.run(command(*line[1:]), check=True, capture_output=True)
    for index in range(FRAMES):
        expected = read_mask(tmp_path / f"annotation/propagated/{index:05d}.png")
        assert (read_mask(tmp_path / f"annotation/export/masks/{index:05d}.png") == expected).all()
    assert server.end()[0] == 128 + signal.SIGTERM
    server = serve("--size", 160)
    server.request("POST", "propagate", {"direction": "both", "until": None})
    assert server.job()["message"] == "all frames are up to date"
    server.save(3, read_mask(clip / "masks/00003.png"))
    server.request("POST", "export", {"kinds": ["masks"]})
    assert server.job()["message"].endswith(f"; {FRAMES} frames out of date: propagate and export again")


@pytest.mark.slow
def test_a_propagation_stops_and_gives_way_to_a_correction(serve, clip):
    server = serve()                            # at 480 pixels: slow enough to be stopped
    server.save(0, read_mask(clip / "masks/00000.png"))
    server.request("POST", "propagate", {"direction": "forward", "until": None})
    assert server.request("POST", "propagate", {"direction": "forward", "until": None}) == (
        400, {"error": "the propagation has not ended yet; stop it first"})
    server.job(lambda job: job["done"] >= 2)
    with server.frozen():
        start = time.monotonic()
        status, frame = server.request("GET", "frames/9")
        assert (status, frame[:2]) == (200, b"\xff\xd8")
        assert time.monotonic() - start < 1         # not blocked by the propagation
        server.request("POST", "stop")
    job = server.job()
    assert job["status"] == "stopped"
    assert server.labels(job["frame"]).any()    # what is done is kept
    server.request("POST", "propagate", {"direction": "forward", "until": None})
    server.job(lambda job: job["done"] >= 1)
    with server.frozen():
        server.save(1, read_mask(clip / "masks/00001.png"))
    job = server.job()
    assert job["status"] == "stopped"
    assert "a mask that it depends on has changed" in job["message"]
    server.request("POST", "propagate", {"direction": "forward", "until": 6})
    server.job(lambda job: job["done"] >= 1)
    server.save(9, read_mask(clip / "masks/00009.png"))         # later ones do not matter
    assert server.job()["status"] == "done"


@pytest.mark.slow
def test_requests_of_others_are_refused(serve, clip, tmp_path):
    server = serve()
    mask, address = np.ones((HEIGHT, WIDTH), np.uint8), f"127.0.0.1:{server.port}"
    refused = [server.request("GET", "", Host=f"evil.example:{server.port}"),
               server.request("GET", "clip", Host="127.0.0.1:1"),
               server.request("PUT", "labels/0", mask.tobytes(), Origin="http://evil.example"),
               server.request("PUT", "labels/0", mask.tobytes(), Origin="null"),
               server.request("GET", "/"), server.request("GET", "/wrong/clip"),
               server.request("GET", f"/{server.token[:-1]}/clip")]
    assert [status for status, _ in refused] == [403] * len(refused)
    assert server.request("GET", "clip", Origin=f"http://{address}")[0] == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://[::1]:{server.port}/{server.token}/")
    for path in ("static/../server.py", "static/%2e%2e/server.py", "static/..%2fserver.py", "frames/-1",
                 "labels/1/../2x", f"frames/{FRAMES}", "labels/99999999", "labels/0.png", "masks/00000.png",
                 "frames/" + "9" * 5000, "grabcut/" + "9" * 5000):
        assert server.request("POST" if "grabcut" in path else "GET", path)[0] == 404, path
    with socket.create_connection(("127.0.0.1", int(server.port))) as connection:
        connection.sendall(f"GET ? HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        assert b" 403 " in connection.recv(1000)
    assert server.request("PUT", "objects", '[{"label": 1, "name": "a\\ud800"}]')[0] == 200
    assert server.request("GET", "state?since=0")[1]["objects"] == [{"label": 1, "name": "a"}]
    errors = [server.request("PUT", "labels/0", b"x" * size) for size in (0, 10, HEIGHT * WIDTH - 1)]
    assert [status for status, _ in errors] == [400] * 3
    assert errors[1][1] == {"error": f"the mask has 10 pixels instead of {HEIGHT * WIDTH}"}
    assert server.request("PUT", "labels/0", b"x" * (HEIGHT * WIDTH + 1))[0] == 413
    assert server.request("PUT", "objects", "[" * 70000)[0] == 413
    for method, path, body in [("PUT", "objects", "{"), ("PUT", "objects", {"label": 1}), ("PUT", "objects", [1]),
                               ("PUT", "objects", [{"label": 300, "name": "x"}]), ("POST", "export", {"kinds": ["x"]}),
                               ("POST", "export", {"kinds": [["masks"]]}), ("POST", "propagate", {"direction": "up"}),
                               ("POST", "propagate", {"direction": "both", "until": None}),
                               ("POST", "propagate", {"direction": "forward", "until": True}),
                               ("PUT", "objects", [{"label": True, "name": "x"}]), ("PUT", "objects", "[" * 60000),
                               ("PUT", "objects", '{"a":' * 10000), ("POST", "propagate", "[" * 60000),
                               ("POST", "session", "[]"), ("POST", "grabcut/0?box=1,2", mask.tobytes() * 0),
                               ("POST", "grabcut/0?box=1,2,3", bytes(HEIGHT * WIDTH)),
                               ("POST", "grabcut/0?box=a,b,c,d", bytes(HEIGHT * WIDTH))]:
        status, answer = server.request(method, path, body)
        assert (status, len(answer["error"].splitlines())) == (400, 1), (path, body, answer)
    assert not (tmp_path / "annotation/masks").exists()         # nothing was saved
    code, printed = server.end(signal.SIGINT)
    assert (code, printed.strip()) == (130, "interrupted: finished output is kept")


@pytest.mark.slow
def test_a_second_window_has_to_take_over(serve):
    server = serve()
    assert server.request("POST", "session", {"id": "other", "take": False})[0] == 409
    assert server.request("POST", "session", {"id": "test", "take": False})[0] == 200     # reloaded
    assert server.request("POST", "session", {"id": "other", "take": True})[0] == 200
    assert server.request("GET", "state?since=0") == (409, {"error": "This clip is open in another window."})
    assert server.request("GET", "clip", **{"X-Session": "other"})[0] == 200


@pytest.mark.slow
def test_no_mask_is_lost_when_the_server_is_killed(serve):
    random.seed(4)
    acknowledged, mask = {}, np.zeros((HEIGHT, WIDTH), np.uint8)
    server = serve()
    for attempt in range(6):
        end = time.monotonic() + random.uniform(0, 0.5)
        while time.monotonic() < end:
            index = random.randrange(FRAMES)
            mask[random.randrange(HEIGHT), random.randrange(WIDTH)] = random.randrange(1, 5)
            server.save(index, mask)
            acknowledged[index] = mask.copy()
        if attempt % 2:                         # in the middle of a request, of which there is no answer
            index = next(iter(acknowledged))
            connection = http.client.HTTPConnection("127.0.0.1", int(server.port))
            connection.request("PUT", f"/{server.token}/labels/{index}", acknowledged[index].tobytes(), server.headers)
        server.process.kill()
        server.process.wait()
        server = serve()
        for index, expected in acknowledged.items():
            assert (server.labels(index) == expected).all()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--images", "missing"], "missing: no such folder"),
    (["--video", "clip/frames/00000.jpg.txt"], "no such file"),
    (["--images", "clip/frames", "--masks", "clip/frames/00000.jpg"], "JPEG does not preserve labels"),
    (["--images", "clip/frames", "--port", "70000"], "not a port"),
    (["--images", "clip/frames", "--model", "clip/masks/00000.png"], "00000.png"),
    (["--video", "clip.mp4", "--masks", "clip/frames/00000.jpg"], "JPEG does not preserve labels"),
    (["--images", "clip/frames", "--output", "clip"], "holds other files"),
    (["--images", "clip/frames", "--device", "tpu"], "tpu")])
@pytest.mark.slow
def test_bad_input_gets_one_line(clip, tmp_path, arguments, message):
    write_video(tmp_path / "clip.mp4", [frame for frame, _ in draw_clip(200, HEIGHT, WIDTH, 1, seed=2)])
    result = subprocess.run(command("annotate.py", "--no_browser", "--output", tmp_path / "a", *arguments),
                            cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_two_servers_cannot_write_to_one_folder(serve, clip, tmp_path):
    server = serve()
    second = subprocess.run(command("annotate.py", "--images", clip / "frames", "--output", tmp_path / "annotation"),
                            capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "another run is writing there" in second.stderr
    taken = subprocess.run(command("annotate.py", "--images", clip / "frames", "--output", tmp_path / "other", "--port",
                                   server.port), capture_output=True, text=True, timeout=60)
    assert f"--port {server.port}: Address already in use; choose another one" in taken.stderr


@pytest.mark.slow
def test_a_box_on_a_frame_that_is_not_scanned_yet_waits_for_it(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (WIDTH, HEIGHT))
    frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    cv2.circle(frame, (30, 30), 12, (200, 220, 90), -1)
    for _ in range(5000):
        writer.write(frame)
    writer.release()
    server = Server("--video", tmp_path / "clip.mp4", "--output", tmp_path / "annotation")
    status, mask = server.request("POST", "grabcut/4999?box=14,14,46,46", bytes(HEIGHT * WIDTH))
    assert (status, len(mask)) == (200, HEIGHT * WIDTH)
    assert server.end()[0] == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_worker_that_was_killed_is_started_again(serve, clip):
    server = serve()
    server.save(0, read_mask(clip / "masks/00000.png"))
    for frames in (1, 3):
        server.request("POST", "propagate", {"direction": "forward", "until": None})
        server.job(lambda job, frames=frames: job["done"] >= frames)
        server.kill_workers(signal.SIGKILL)
        job = server.job()
        assert job["status"] == "failed"
        assert "perhaps for lack of memory" in job["message"]
    assert server.labels(2).any()               # what was done is kept
    server.request("POST", "propagate", {"direction": "forward", "until": None})
    assert server.job()["status"] == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8")
def test_a_folder_whose_name_is_not_utf8(clip, tmp_path):
    folder = (clip / "frames").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    server = Server("--images", folder, "--output", tmp_path / "annotation")
    try:
        status, answer = server.request("GET", "clip")
        assert status == 200
        assert answer["name"] == folder.name
    finally:
        server.end()


def test_missing_packages_are_named(clip, tmp_path):
    code = ("import sys; sys.path.insert(0, '.'); sys.modules |= {'av': None, 'uvicorn': None}; "
            "import annotate; annotate.run(annotate.main)")
    result = subprocess.run([sys.executable, "-c", code, "--images", clip / "frames"], capture_output=True, text=True,
                            cwd=command("annotate.py")[1].rpartition("/")[0])
    assert result.stderr == "error: annotate.py needs av; install it with pip install -r requirements-extras.txt\n"
