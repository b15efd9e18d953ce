"""The download scripts against a local server in the place of Google Drive, with archives shaped like the real ones."""
import io
import os
import random
import re
import shutil
import signal
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from commands import ROOT
from PIL import Image

import download_bl30k
import download_datasets
import download_model
from model.defaults import LITE_WEIGHTS
from util.cli import InputError, Interrupted
from util.download import extract
from util.files import LockedError, lock

SOURCES = {source.path: source for sources in (download_bl30k.SEGMENTS.values(), download_model.WEIGHTS.values(), *(
    data_set.sources for data_set in download_datasets.DATA_SETS.values())) for source in sources}
STATIC, TRAINVAL = "static_data.zip", "DAVIS/2017/DAVIS-2017-trainval-480p.zip"
PAGES = {"quota": '<html><p class="uc-error-subcaption">Too many users.</p></html>', "sign-in": "<html>Sign-in</html>"}
DAVIS = sorted(["2017/trainval/Scribbles/bear/001.json", *(
    f"{part}/{name}" for part in ("2016", "2017/trainval", "2017/test-dev")
    for name in ("Annotations/480p/v/0.png", "JPEGImages/480p/v/0.jpg", "README"))])


class Handler(BaseHTTPRequestHandler):
    """Google Drive: ``files`` by path; ``answers`` by path, which are used up: a page, "cut" or "interrupt"."""
    def do_GET(self):
        path = next(path for path, source in SOURCES.items() if self.path == f"/uc?id={source.drive_id}")
        content, answer = self.server.files[path], (self.server.answers.get(path) or [""]).pop(0)
        start = int((re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.server.requests.append((path, start))
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if answer in PAGES else "application/octet-stream")
        self.send_header("X" if answer in PAGES else "Content-Disposition", 'attachment; filename="name"')
        self.send_header("Content-Range" if start else "X", f"bytes {start}-{len(content) - 1}/{len(content)}")
        content = PAGES[answer].encode() if answer in PAGES else content[start:]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:len(content) // 2] if answer in ("cut", "interrupt") else content)
        if answer == "interrupt":
            end = time.monotonic() + 60
            while not any(file.stat().st_size > 500_000 for file in Path("..").glob("static_data.zip*")):
                assert time.monotonic() < end
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)


def make_zip(*names, content=b"content"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def make_tar(*names, **attributes):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            for key, value in {"size": 1000, **attributes}.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(bytes(1000)))
    return file.getvalue()


@pytest.fixture
def drive(monkeypatch):
    server, get, image = ThreadingHTTPServer(("127.0.0.1", 0), Handler), requests.Session.get, io.BytesIO()
    server.answers, server.requests = {}, []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(requests.Session, "get", lambda session, url, **options: get(
        session, url.replace("https://drive.google.com", address), **options))
    monkeypatch.setattr(random, "uniform", lambda *_: 0)         # seconds between gdown's retries
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 ** 12))
    Image.new("P", (800, 600)).save(image, "png")
    davis = make_zip("DAVIS/JPEGImages/480p/v/0.jpg", "DAVIS/Annotations/480p/v/0.png", "DAVIS/README")
    server.files = {
        STATIC: make_zip("static_data/fss/c/x.jpg", "static_data/DUTS-TR/x.jpg", "__MACOSX/static_data/fss/._x.jpg"),
        TRAINVAL: davis, "DAVIS/DAVIS-data.zip": davis, "DAVIS/2017/DAVIS-2017-test-dev-480p.zip": davis,
        "DAVIS/2017/DAVIS-2017-scribbles-trainval.zip": make_zip("DAVIS/Scribbles/bear/001.json", "DAVIS/README"),
        "YouTube/train.zip": make_zip("x/JPEGImages/v/0.png", "x/Annotations/v/0.png", content=image.getvalue()),
        "YouTube/valid.zip": make_zip("JPEGImages/v/0.jpg", "Annotations/v/0.png", "meta.json"),
        "YouTube/all_frames/valid.zip": make_zip("some/where/else/JPEGImages/v/0.jpg"),
        **{f"BL30K/BL30K_{name}.tar": make_tar(f"x/JPEGImages/{name}/0", f"Annotations/{name}/0") for name in "abcdef"},
        "saves/propagation_model_s02.pth": LITE_WEIGHTS.read_bytes()}
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def start(drive, tmp_path, monkeypatch, capsys):
    """Run a script in an empty folder ``project``, and return its output."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    def call(script, *arguments, error=None):
        drive.requests.clear()
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        with pytest.raises((InputError, ConnectionError), match=error) if error else nullcontext():
            script.main()
        return capsys.readouterr()
    return call


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_data_sets(start, drive, tmp_path):
    out = start(download_datasets, "--yes").out
    assert files_below(tmp_path / "static") == ["DUTS-TR/x.jpg", "fss/c/x.jpg"]
    assert files_below(tmp_path / "DAVIS") == DAVIS
    assert files_below(tmp_path / "YouTube/valid") == ["Annotations/v/0.png", "JPEGImages/v/0.jpg", "meta.json"]
    assert files_below(tmp_path / "YouTube/all_frames") == ["valid_all_frames/JPEGImages/v/0.jpg"]
    assert len(files_below(tmp_path)) == len(DAVIS) + 10
    assert Image.open(tmp_path / "YouTube/train_480p/JPEGImages/v/0.png").size == (640, 480)
    for text in ("terms: ", "cite: Perazzi et al.", f"../{TRAINVAL}: about 0.8 GB", "31.6 GB needed, 1000.0 GB free"):
        assert text in out
    assert "done: " in start(download_datasets).out              # nothing is left to confirm
    assert not drive.requests


@pytest.mark.parametrize("page", ["quota", "sign-in"])
def test_a_refused_archive_does_not_stop_the_others(start, drive, tmp_path, page):
    drive.answers[TRAINVAL] = [page]
    arguments = (download_datasets, "--only", "davis", "--root", tmp_path / "data", "--yes")
    err = start(*arguments, error=f"^1 archive not installed, see above: {TRAINVAL}$").err
    page = f"https://drive.google.com/file/d/{SOURCES[TRAINVAL].drive_id}/view"
    assert f"{page} in a browser and save the file as {tmp_path / 'data' / TRAINVAL}\n" in err
    (tmp_path / "data" / TRAINVAL).write_bytes(drive.files[TRAINVAL])            # saved by the user
    start(*arguments)
    assert files_below(tmp_path / "data/DAVIS") == DAVIS
    assert not drive.requests


def test_confirmation_and_free_space(start, drive, tmp_path, monkeypatch):
    for answer in ("", "no\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        start(download_datasets, error="not confirmed, nothing was downloaded; to skip the question, use --yes")
        assert not drive.requests
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    start(download_datasets, "--only", "static")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5e9))
    start(download_datasets, "--only", "davis", "--yes", error=r"^\.\.: not enough space; free 0\.1 GB more")
    assert not drive.requests
    (tmp_path / "DAVIS").mkdir()
    with (tmp_path / "DAVIS/DAVIS-data.zipabcdefgh.part").open("wb") as partial:
        partial.truncate(120_000_000)                            # is not downloaded again
    monkeypatch.setattr("sys.stdin", None)
    start(download_datasets, "--only", "davis", error="not confirmed")


def test_downloads_resume(start, drive, tmp_path):
    content = drive.files[STATIC] = make_zip("fss/c/x.jpg", "DUTS-TR/x.jpg", content=random.randbytes(1_000_000))
    drive.answers[STATIC] = ["interrupt"]
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        start(download_datasets, "--only", "static", "--yes")
    partial, = tmp_path.glob("static_data.zip*")
    size = partial.stat().st_size
    assert size > 500_000
    assert content.startswith(partial.read_bytes())
    drive.answers[STATIC] = ["cut"] * 7
    start(download_datasets, "--only", "static", "--yes", error=r"static_data.zip: download failed \(Download is incom")
    assert drive.requests[1] == (STATIC, size)
    size = partial.stat().st_size
    start(download_datasets, "--only", "static", "--yes")
    assert drive.requests == [(STATIC, 0), (STATIC, size)]
    assert sorted(os.listdir(tmp_path)) == ["project", "static"]


ZIP, TAR = make_zip("fss/x.jpg", "DUTS-TR/x.jpg"), make_tar("a", "b")            # .tar: blocks of 512 bytes


@pytest.mark.parametrize(("name", "content"), [
    *(("x.zip", content) for content in (ZIP[:-50], ZIP[:40] + b"?" + ZIP[41:], b"<html>", b"")),
    *(("x.tar", content) for content in (
        make_tar("../b"), make_tar("b", type=tarfile.SYMTYPE, linkname="../../b"), make_tar("b", type=tarfile.CHRTYPE),
        make_tar("b", type=tarfile.LNKTYPE, linkname="../b"), TAR[:1024], TAR[:1536], TAR[:1600],
        TAR[:1600] + b"?" * 40 + TAR[1640:], b""))], ids=map(str, range(13)))
def test_damaged_archives(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: the archive is damaged \(.+\)$"):
        extract(tmp_path / name, tmp_path / "in")
    assert set(files_below(tmp_path)) <= {name, "in/a", "in/fss/x.jpg"}


def test_names_outside_the_folder_are_extracted_inside_it(tmp_path):
    (tmp_path / "x.zip").write_bytes(make_zip("../a", "b/../../c", "/d"))
    extract(tmp_path / "x.zip", tmp_path / "in")
    assert files_below(tmp_path) == ["in/a", "in/b/c", "in/d", "x.zip"]


def test_an_unusable_archive_is_set_aside(start, drive, tmp_path):
    drive.files[STATIC] = make_zip("fss/x.jpg")
    err = start(download_datasets, "--only", "static", "--yes", error="1 archive not installed").err
    assert "it was renamed to static_data.zip.damaged, run this again to download another" in err
    assert files_below(tmp_path) == ["static_data.zip.damaged"]


def test_the_lock_is_held_until_the_data_is_in_its_folder(start, tmp_path, monkeypatch):
    move, moved = shutil.move, []
    def checked_move(source, target):
        with pytest.raises(LockedError), lock(tmp_path / STATIC):
            pass
        moved.append(os.path.basename(target))
        return move(source, target)
    monkeypatch.setattr(shutil, "move", checked_move)
    start(download_datasets, "--only", "static", "--yes")
    assert moved[-1] == "static"


def test_bl30k_segments_are_merged(start, drive, tmp_path):
    start(download_bl30k, "--only", "b", "a", "--yes")
    assert files_below(tmp_path / "BL30K") == ["Annotations/a/0", "Annotations/b/0", "BL30K_a.finished",
                                               "BL30K_b.finished", "JPEGImages/a/0", "JPEGImages/b/0"]
    (tmp_path / "BL30K/BL30K_a.extracted/x/JPEGImages").mkdir(parents=True)      # as if interrupted
    (tmp_path / "BL30K/JPEGImages/a").rename(tmp_path / "BL30K/BL30K_a.extracted/x/JPEGImages/a")
    start(download_bl30k, "--yes")
    assert {path for path, _ in drive.requests} == {f"BL30K/BL30K_{name}.tar" for name in "cdef"}
    assert sorted(os.listdir(tmp_path / "BL30K/JPEGImages")) == list("abcdef")
    assert not list(tmp_path.glob("BL30K/*.extracted"))


@pytest.mark.slow
def test_weights(start, drive, tmp_path, monkeypatch):
    assert "done: saves/propagation_model_s02.pth (lite network)" in start(download_model, "--model", "s02").out
    start(download_model, "--model", "s02")
    assert not drive.requests
    (tmp_path / "project/saves/propagation_model.pth").write_text("<html>saved by a browser</html>")
    start(download_model, error="propagation_model.pth: .*; it was renamed to propagation_model.pth.damaged, run this")
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: requests.get("http://127.0.0.1:9"))
    start(download_model, error=r"^propagation_model.pth: download failed \(.*\); run this again to resume, or delete ")


def test_the_docs_link_every_file():
    page = (ROOT / "docs/data.md").read_text()
    assert [path for path, source in SOURCES.items() if f"/file/d/{source.drive_id}/view" not in page] == []
