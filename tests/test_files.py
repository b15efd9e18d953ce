"""Output folders and files: they appear whole, replace nothing but what they may, and survive kills."""
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, command

from inference.results import check_replaceable
from util.cli import InputError
from util.files import TEMPORARY, LockedError, atomic_file, atomic_folder, lock, recover_folder, write_atomic


def put(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace(final, replaceable=(), **files):
    with atomic_folder(final, replaceable) as folder:
        for name, text in files.items():
            put(folder / name, text)


@pytest.mark.parametrize("where", ["o/thesis.txt", ".partial/o/thesis.txt", "o/.partial/thesis.txt",
                                   "o/overlay/me.txt"])
def test_folders_with_a_users_file_are_refused(where, tmp_path):
    path = put(tmp_path / where)
    folder = next(parent for parent in path.parents if parent.name == "o")
    with pytest.raises(InputError, match="holds something that is no mask"):
        check_replaceable(folder, ["00000"], overwrite=True)


def test_folders_with_a_users_link_or_folder_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    for name, make in (("link", lambda path: path.symlink_to(tmp_path / "real")), ("empty", Path.mkdir),
                       ("overlay", lambda path: path.symlink_to(tmp_path / "real"))):
        folder = tmp_path / f"o_{name}"
        folder.mkdir()
        make(folder / name)
        with pytest.raises(InputError, match=f"no mask of this clip \\({name}\\)"):
            check_replaceable(folder, ["00000"], overwrite=True)


@pytest.mark.parametrize("target", ["nowhere", "o"])
def test_a_broken_link_is_refused(target, tmp_path):
    (tmp_path / "o").symlink_to(tmp_path / target)
    with pytest.raises(InputError, match="is a file or a broken link"):
        check_replaceable(tmp_path / "o", ["00000"], overwrite=True)


def test_our_own_files_may_be_replaced_if_asked(tmp_path):
    folder = tmp_path / "o"
    assert check_replaceable(folder, ["00000"], overwrite=False) == set()
    put(folder / "00000.png"), put(folder / "overlay/overlay.mp4")
    for name in (".DS_Store", "._00000.png", ".nfs00c1", "@eaDir/00000.png/a.jpg"):     # of the system
        put(folder / name)
    assert check_replaceable(folder, ["00000"], overwrite=True) == {"00000.png", "overlay/overlay.mp4"}
    with pytest.raises(InputError, match="holds masks already"):
        check_replaceable(folder, ["00000"], overwrite=False)


@pytest.mark.parametrize("neighbour", [".o.partial/notes.txt", ".partial/notes.txt"])
def test_neighbours_stay(neighbour, tmp_path):
    notes = put(tmp_path / neighbour)
    replace(tmp_path / "o", a="new")
    assert notes.read_text() == "mine"
    assert content(tmp_path / "o") == {"a": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([neighbour.split("/")[0], "o"])


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    final = tmp_path / "deep/out"

    def fail():
        with atomic_folder(final) as folder:
            put(folder / "half.png")
            raise InputError("stop")
    with pytest.raises(InputError):
        fail()
    assert list((tmp_path / "deep").iterdir()) == []
    with atomic_folder(final) as folder:
        put(folder / "a")
        assert not final.exists()
    assert content(tmp_path) == {"deep/out/a": "mine"}


def fail_to_rename(monkeypatch):
    rename = Path.rename

    def rename_files_only(path, target):
        if path.is_dir():
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)
    monkeypatch.setattr(Path, "rename", rename_files_only)


@pytest.mark.parametrize("how", ["renamed", "current folder", "mount point"])
def test_only_checked_files_are_replaced(how, tmp_path, monkeypatch):
    final = tmp_path / "o"
    for name in ("a", "b", "overlay/c"):
        put(final / name, "old")
    if how == "current folder":
        monkeypatch.chdir(final)
    if how == "mount point":
        fail_to_rename(monkeypatch)
    put(final / TEMPORARY / "left by a killed run")
    number = final.stat().st_ino
    with atomic_folder(final, {"a", "b", "overlay/c"}) as folder:
        put(folder / "a", "new"), put(folder / "overlay/d", "new")
        put(final / "added.txt"), put(final / "overlay/added.txt")
        (final / "link").symlink_to("added.txt")
    assert content(final) == {"a": "new", "overlay/d": "new", "added.txt": "mine", "overlay/added.txt": "mine",
                              "link": "mine"}
    assert (final / "link").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert (final.stat().st_ino == number) == (how != "renamed")


def test_a_link_stays_and_the_folder_keeps_its_permissions(tmp_path):
    real = put(tmp_path / "real/a", "old").parent
    real.chmod(0o750)
    (tmp_path / "link").symlink_to(real)
    replace(tmp_path / "link", a="new")
    assert (tmp_path / "link").is_symlink()
    assert content(real) == {"a": "new"}
    assert real.stat().st_mode & 0o777 == 0o750


def test_names_of_255_bytes(tmp_path):
    names = ["ä" * 127 + "1", "ä" * 127 + "2"]
    with atomic_folder(tmp_path / names[0]) as first, atomic_folder(tmp_path / names[1]) as second:
        put(first / "a", "1"), put(second / "a", "2")
        with atomic_file(first / f"{'x' * 251}.png") as partial:
            assert str(os.getpid()) in partial.name
            partial.write_text("3")
    assert content(tmp_path) == {f"{names[0]}/a": "1", f"{names[1]}/a": "2", f"{names[0]}/{'x' * 251}.png": "3"}


@pytest.mark.skipif(os.name == "nt", reason="flock")
def test_output_is_written_where_files_cannot_be_locked(tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr("fcntl.flock", flock)
    replace(tmp_path / "o", a="new")
    assert content(tmp_path / "o") == {"a": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert capsys.readouterr().err == (f"warning: {tmp_path}/o: this file system cannot lock files; make sure that no "
                                       f"other run writes there\n")


def test_locks_keep_others_out_and_leave_nothing(tmp_path):
    code = "import sys; from pathlib import Path; from util.files import lock\nwith lock(Path(sys.argv[1])): pass"
    other = [sys.executable, "-c", code, str(tmp_path / "o")]
    with atomic_folder(tmp_path / "o"):
        with pytest.raises(LockedError, match="o: another run is writing there"), lock(tmp_path / "o"):
            pass
        result = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "LockedError" in result.stderr
        put(tmp_path / f".o{TEMPORARY[:-8]}.replaced/a")
        recover_folder(tmp_path / "o")                       # leaves it to the one that holds the lock
        assert not (tmp_path / "o").exists()
    subprocess.run(other, cwd=ROOT, check=True)
    recover_folder(tmp_path / "o")
    assert content(tmp_path) == {"o/a": "mine"}


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep/f.txt"
    write_atomic(path, "old")
    write_atomic(path.with_name("g"), b"bytes")

    def fail():
        with atomic_file(path) as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as error:
        fail()
    assert error.value.filename == str(path)
    assert content(tmp_path) == {"deep/f.txt": "old", "deep/g": "bytes"}


JOB = """
import os, signal, sys
from pathlib import Path
from util.cli import run
from util.files import atomic_folder, recover_folder

final, text, number, renames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rename = Path.rename

def rename_and_kill(path, target):
    global renames
    result = rename(path, target)
    renames -= 1
    if renames == 0:
        os.kill(os.getpid(), number)
    return result

def main():
    recover_folder(final)
    names = [f"{index:05d}.png" for index in range(40)]
    with atomic_folder(final, names) as folder:
        for name in names:
            (folder / name).write_text(text)
        Path.rename = rename_and_kill
        print("written", flush=True)
    print("done", flush=True)

run(main)
"""


def start(final, text, number=0, renames=-1):
    return subprocess.Popen([sys.executable, "-c", JOB, str(final), text, str(int(number)), str(renames)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def texts(final):
    assert len(list(final.glob("*.png"))) == 40
    return {path.read_text() for path in final.glob("*.png")}


@pytest.fixture
def final(tmp_path):
    final = tmp_path / "o"
    assert start(final, "0").wait() == 0
    put(final / "added.txt")
    return final


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_between_the_renames_waits(number, final):
    process = start(final, "1", number, renames=1)
    _, err = process.communicate()
    assert (process.returncode, err) == (128 + number, "\ninterrupted: finished output is kept\n")
    assert texts(final) == {"1"}
    assert (final / "added.txt").read_text() == "mine"
    assert [path.name for path in final.parent.iterdir()] == ["o"]


@pytest.mark.parametrize(("renames", "found"), [(1, "0"), (2, "1")])
def test_a_kill_at_a_rename_is_mended_by_the_next_check(renames, found, final):
    assert start(final, "1", signal.SIGKILL, renames).wait() == -signal.SIGKILL
    names = [f"{index:05d}" for index in range(40)]
    with pytest.raises(InputError, match=r"no mask of this clip \(added.txt\)"):
        check_replaceable(final, names, overwrite=True)
    assert texts(final) == {found}
    assert (final / "added.txt").read_text() == "mine"


@pytest.mark.slow
def test_random_kills_lose_nothing(final):
    random.seed(0)
    before = "0"
    for index in range(1, 16):
        number = random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        process = start(final, str(index))
        process.stdout.readline()
        time.sleep(random.random() * 0.004)
        process.send_signal(number)
        process.communicate()
        if number == signal.SIGKILL:
            recover_folder(final)
        found = texts(final)
        assert found in ({before}, {str(index)})
        assert (final / "added.txt").read_text() == "mine"
        before, = found


@pytest.mark.parametrize(("script", "arguments", "message"), [
    ("draw_clip", ["there"], "there/frames: exists already; choose another folder"),
    ("draw_clip", ["new", "--objects", "300"], "--objects 300: must be at most 64"),
    ("benchmark", ["--objects", "300"], "--objects 300: must be at most 255, and less than the width"),
    ("resize_length", ["there", "there/smaller"],
     "there/smaller: is inside the folder to resize; choose another output folder"),
])
def test_scripts_report_one_line_and_touch_nothing(script, arguments, message, tmp_path):
    put(tmp_path / "there/frames/00000.jpg")
    before = sorted(tmp_path.rglob("*"))
    run = subprocess.run(command(f"scripts/{script}.py", *arguments), cwd=tmp_path, capture_output=True, text=True,
                         check=False)
    assert (run.returncode, run.stderr) == (2, f"error: {message}\n")
    assert sorted(tmp_path.rglob("*")) == before
