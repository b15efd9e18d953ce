"""What is a user's is never taken for ours."""
import subprocess
from pathlib import Path

import pytest
from commands import ROOT, command

from inference.results import check_replaceable
from util.cli import InputError
from util.files import atomic_folder


def put(path, text="mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


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


def test_our_own_files_may_be_replaced_if_asked(tmp_path):
    folder = tmp_path / "o"
    put(folder / "00000.png"), put(folder / "overlay/overlay.mp4"), put(folder / ".DS_Store")
    check_replaceable(folder, ["00000"], overwrite=True)
    with pytest.raises(InputError, match="holds masks already"):
        check_replaceable(folder, ["00000"], overwrite=False)


@pytest.mark.parametrize("neighbour", [".o.partial/notes.txt", ".partial/notes.txt"])
def test_neighbours_stay(neighbour, tmp_path):
    notes = put(tmp_path / neighbour)
    with atomic_folder(tmp_path / "o") as folder:
        put(folder / "00000.png", "new")
    assert notes.read_text() == "mine"
    assert (tmp_path / "o/00000.png").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([neighbour.split("/")[0], "o"])


@pytest.mark.parametrize(("script", "arguments", "message"), [
    ("scripts/draw_clip.py", ["there"], "error: there/frames: is there already; name another folder"),
    ("scripts/draw_clip.py", ["new", "--objects", "300"], "error: --objects 300: a mask has at most 64"),
    ("scripts/benchmark.py", ["--size", "8", "96"], "error: --size 8 96: both sides need 16 to 65536 pixels"),
    ("scripts/benchmark.py", ["--objects", "300"], "error: --objects 300: at most 255, and fewer than columns of "
                                                   "pixels"),
    ("scripts/benchmark.py", ["--memory", "1"], "error: --memory 1: a frame reads two or more, the first and the one "
                                                "before it"),
    ("scripts/resize_length.py", ["there", "there/smaller"], "error: there/smaller: is in the folder to be resized; "
                                                             "name another to write to"),
    ("try_correspondence.py", ["--src_image", "views/source.png", "--points", "5,5", "--output", "views"],
     "error: views/source.png: would be overwritten by the view of that name; name another --output"),
])
def test_one_line_and_nothing_of_the_users_is_touched(script, arguments, message, tmp_path):
    put(tmp_path / "there/frames/00000.jpg")
    (tmp_path / "views").mkdir()
    view = (ROOT / "examples/00015.jpg").read_bytes()
    (tmp_path / "views/source.png").write_bytes(view)
    before = sorted(tmp_path.rglob("*"))
    run = subprocess.run(command(script, *arguments), cwd=tmp_path, capture_output=True, text=True,
                         check=False)
    assert (run.returncode, run.stderr) == (2, f"{message}\n")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "views/source.png").read_bytes() == view
