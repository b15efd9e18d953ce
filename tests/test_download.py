"""Downloads from a server that plays Google Drive and does all that can go wrong."""
import errno
import fcntl
import os
import random
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from provider import Provider

import util.download
from util.cli import InputError
from util.download import Withheld, fetch
from util.drive import Drive

CONTENT = random.Random(1).randbytes(1_000_001)
HALF = 500_001                  # of it, rounded up: what is here when a connection was cut


@pytest.fixture
def provider():
    server = Provider()
    server.files["x"] = CONTENT
    yield server
    server.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "x.zip"


def only_file(target, content=CONTENT):
    return target.read_bytes() == content and os.listdir(target.parent) == [target.name]


def test_a_file_arrives(provider, target):
    fetch(provider.drive(), "x", target)
    assert only_file(target)
    assert provider.asked == [("x", 0)]


def test_it_goes_on_after_a_cut(provider, target, capsys):
    provider.ways["x"] = ["cut", "reset", "cut", "whole"]
    fetch(provider.drive(), "x", target)
    assert only_file(target)
    assert provider.starts("x") == [0, HALF, HALF, 750_001]
    assert "warning: x.zip: the connection ended after 500001 of 1000001 bytes; trying again" in capsys.readouterr().err


def test_a_later_run_goes_on(provider, target):
    provider.ways["x"] = ["cut", "fault"]
    with pytest.raises(InputError, match=r"x\.zip: cannot be downloaded: the server answers with HTTP status 503; "
                                         r"500 kB of 1\.0 MB are here, run this again to go on$"):
        fetch(provider.drive(), "x", target)
    part = target.with_name("x.zip.part")
    assert part.read_bytes() == CONTENT[:HALF]
    assert not target.exists()
    assert provider.starts("x") == [0] + 3 * [HALF]                       # three tries in a row without gain
    provider.ways["x"] = ["whole"]
    fetch(provider.drive(), "x", target)
    assert only_file(target)
    assert provider.starts("x")[-1] == HALF


def test_a_part_that_is_whole_already(provider, target):
    target.parent.mkdir()
    target.with_name("x.zip.part").write_bytes(CONTENT)
    fetch(provider.drive(), "x", target)
    assert only_file(target)
    assert provider.starts("x") == [len(CONTENT)]


@pytest.mark.parametrize("way", ["no ranges", "whole"])
def test_a_part_that_cannot_be_gone_on_with_is_begun_again(provider, target, way):
    """The server knows no ranges, or the part is longer than the file."""
    target.parent.mkdir()
    target.with_name("x.zip.part").write_bytes(b"?" * (1000 if way == "no ranges" else 2_000_000))
    provider.ways["x"] = [way]
    fetch(provider.drive(), "x", target)
    assert only_file(target)


def test_ranges_of_unknown_place_are_not_used(provider, target):
    provider.ways["x"] = ["cut", "forgets the range"]
    with pytest.raises(InputError, match="does not say which bytes"):
        fetch(provider.drive(), "x", target)
    assert target.with_name("x.zip.part").read_bytes() == CONTENT[:HALF]


def test_cut_every_time_without_ranges_ends(provider, target):
    """Every try gets as far as the first one: nothing is gained."""
    provider.files["x"] = CONTENT

    class Handler(provider.server.RequestHandlerClass):
        def do_GET(self):
            self.headers.replace_header("Range", "none") if "Range" in self.headers else None
            super().do_GET()
    provider.server.RequestHandlerClass = Handler
    provider.ways["x"] = ["cut"]
    with pytest.raises(InputError, match="the connection ended after 500001 of 1000001 bytes"):
        fetch(provider.drive(), "x", target)
    assert len(provider.asked) == 4


def test_a_wrong_size(provider, target):
    provider.ways["x"] = ["longer"]
    with pytest.raises(InputError, match="the connection ended after 1000001 of 1001001 bytes"):
        fetch(provider.drive(), "x", target)
    assert not target.exists()
    assert provider.starts("x") == [0] + 3 * [len(CONTENT)]


def test_an_unknown_size(provider, target):
    provider.ways["x"] = ["no size"]
    assert provider.drive().size("x") is None
    fetch(provider.drive(), "x", target)
    assert only_file(target)


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(provider, target):
    provider.files["x"] = CONTENT[:100_000]
    provider.ways["x"] = ["slow"]
    fetch(provider.drive(timeout=0.4), "x", target)
    assert only_file(target, CONTENT[:100_000])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        drive = Drive(f"http://127.0.0.1:{silent.getsockname()[1]}/", tries=2, pause=0, timeout=0.1)
        with pytest.raises(InputError, match=r"cannot be downloaded: no connection \(.*timed out"):
            fetch(drive, "x", target.with_name("y.zip"))
    assert os.listdir(target.parent) == ["x.zip"]


def test_no_network(target):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}/"
    with pytest.raises(InputError, match=r"^x\.zip: cannot be downloaded: no connection \(.*refused\)$"):
        fetch(Drive(closed, tries=2, pause=0), "x", target)
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize(("way", "reason"), [("quota", "Google Drive - Quota exceeded"), ("missing", "Not found"),
                                             ("quota disguised", "Google Drive - Quota exceeded")])
def test_a_page_instead_of_the_file(provider, target, way, reason):
    provider.ways["x"] = ["cut", way]
    with pytest.raises(Withheld, match=rf"^x.zip: Google Drive gives a page instead of the file \({reason}\); .*"
                                       rf"https://drive.google.com/file/d/x/view in a browser, put it at "
                                       rf"{re.escape(str(target))}, and run this again$"):
        fetch(provider.drive(), "x", target)
    assert target.with_name("x.zip.part").read_bytes() == CONTENT[:HALF]
    assert len(provider.asked) == 2                                        # asking again would not help


def test_the_question_about_viruses_is_answered(provider, target):
    provider.ways["x"] = ["ask"]
    assert provider.drive().size("x") == len(CONTENT)
    fetch(provider.drive(), "x", target)
    assert only_file(target)


def test_a_disk_that_is_full(provider, target, monkeypatch):
    real = util.download.write_all

    def write_all(file, data):
        room = 600_000 - file.tell()
        real(file, data[:max(room, 0)])
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(util.download, "write_all", write_all)
    with pytest.raises(InputError, match=r"new: the disk is full, 400 kB more are needed; free some and run this "
                                         r"again: the download goes on where it was$"):
        fetch(provider.drive(), "x", target)
    monkeypatch.undo()
    fetch(provider.drive(), "x", target)
    assert only_file(target)
    assert provider.starts("x") == [0, 600_000]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 800 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=800k", "tmpfs", folder], check=False,
                                   capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_real_disk_that_is_full(provider, small_disk):
    with pytest.raises(InputError, match=r"the rest of x.zip needs 1.0 MB and \d+ kB are free; free \d+ kB more"):
        fetch(provider.drive(), "x", small_disk / "x.zip")
    assert os.listdir(small_disk) == []
    provider.ways["x"] = ["no size"]                           # so that nobody can know before
    with pytest.raises(InputError, match="small: the disk is full; free some and run this again"):
        fetch(provider.drive(), "x", small_disk / "x.zip")
    part = (small_disk / "x.zip.part").read_bytes()
    assert 700_000 < len(part) < 820_000
    assert CONTENT.startswith(part)


def test_two_runs_do_not_write_one_file(provider, target):
    target.parent.mkdir()
    part = target.with_name("x.zip.part")
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing there"):
            fetch(provider.drive(), "x", target)
    assert Path(part).exists()
    assert not provider.asked
