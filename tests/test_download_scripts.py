"""The three download scripts, from their command line to the folders they leave; archives have the real ones' shape."""
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from provider import Provider

import download_bl30k
import download_datasets
import download_model
from model.defaults import LITE_WEIGHTS
from util.cli import InputError
from util.drive import Drive
from util.sources import PARTS, SEGMENTS, WEIGHTS
from util.space import readable

ROOT = Path(__file__).resolve().parents[1]
IDS = {part.folder: part.drive_id for part in PARTS}
STATIC = ("BIG_small", "DUTS-TE", "DUTS-TR", "HRSOD_small", "ecssd", "fss")


def picture(kind, width=8, height=6):
    file = io.BytesIO()
    Image.new("RGB" if kind == "JPEG" else "P", (width, height), 1).save(file, kind)
    return file.getvalue()


def make_zip(*names, top=""):
    """A .zip with a file of each name; what is in a picture is one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            kind = {".jpg": "JPEG", ".png": "PNG"}.get(Path(name).suffix)
            archive.writestr(top + name, picture(kind, 800, 600) if kind else "text")
    return file.getvalue()


def make_tar(*names):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return file.getvalue()


@pytest.fixture
def provider():
    server = Provider()
    davis = ("JPEGImages/480p/bear/00000.jpg", "Annotations/480p/bear/00000.png", "ImageSets/2017/val.txt")
    youtube = ("JPEGImages/v/00000.jpg", "Annotations/v/00000.png", "meta.json")
    server.files = {
        IDS["static"]: make_zip(*(f"static_data/{name}/x.jpg" for name in STATIC),
                                *(f"__MACOSX/{name}/._x.jpg" for name in STATIC)),
        IDS["DAVIS/2016"]: make_zip(*davis, "README.md", top="DAVIS/"),
        IDS["DAVIS/2017/trainval"]: make_zip(*davis, top="DAVIS/"),
        IDS["DAVIS/2017/test-dev"]: make_zip(*davis, top="DAVIS/"),
        IDS["DAVIS/2017/trainval/Scribbles"]: make_zip("Scribbles/bear/001.json", "README.md", top="DAVIS/"),
        IDS["YouTube/train"]: make_zip(*youtube, top="train/"),
        IDS["YouTube/valid"]: make_zip(*youtube),                                # without a folder around
        IDS["YouTube/all_frames/valid_all_frames"]: make_zip("JPEGImages/v/00000.jpg", top="some/where/else/"),
        WEIGHTS["s012"][1]: LITE_WEIGHTS.read_bytes(),
        WEIGHTS["s02"][1]: LITE_WEIGHTS.read_bytes(),
        **{drive_id: make_tar(f"BL30K_{name}/JPEGImages/{name}/0.jpg", f"BL30K_{name}/Annotations/{name}/0.png")
           for name, drive_id in SEGMENTS.items()}}
    yield server
    server.close()


@pytest.fixture
def start(provider, tmp_path, monkeypatch, capsys):
    """Run a script's main() in an empty folder, beside which data goes; returns what it printed."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")

    def call(script, *arguments, refused=None, drive=None):
        provider.asked.clear()
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
        if refused:
            with pytest.raises(InputError, match=refused):
                script.main(drive or provider.drive())
        else:
            assert not script.main(drive or provider.drive())
        return capsys.readouterr()
    return call


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


DAVIS = ["Annotations/480p/bear/00000.png", "ImageSets/2017/val.txt", "JPEGImages/480p/bear/00000.jpg"]
DAVIS_TREE = sorted([*(f"DAVIS/{part}/{name}" for part in ("2016", "2017/trainval", "2017/test-dev") for name in DAVIS),
                     "DAVIS/2016/README.md", "DAVIS/2017/trainval/Scribbles/bear/001.json"])
VIDEO = ["Annotations/v/00000.png", "JPEGImages/v/00000.jpg"]
YOUTUBE_TREE = sorted([*(f"YouTube/{part}/{name}" for part in ("train", "valid") for name in (*VIDEO, "meta.json")),
                       *(f"YouTube/train_480p/{name}" for name in VIDEO),
                       "YouTube/all_frames/valid_all_frames/JPEGImages/v/00000.jpg"])


def test_all_data_sets_end_in_their_places(start, provider, tmp_path):
    out = start(download_datasets, "--yes").out
    assert tree(tmp_path) == sorted([*DAVIS_TREE, *YOUTUBE_TREE, *(f"static/{name}/x.jpg" for name in STATIC)])
    for name, size in (("train", (800, 600)), ("train_480p", (640, 480))):
        for picture in VIDEO:
            assert Image.open(tmp_path / "YouTube" / name / picture).size == size
    for text in ("terms: ", "cite: Perazzi et al.", "cite: Xu et al.", "room needed: at least ", "../DAVIS/2016: "):
        assert text in out
    assert "all there" in start(download_datasets).out                      # and nothing to confirm
    assert not provider.asked


def test_only_one_and_its_own_root(start, provider, tmp_path):
    start(download_datasets, "--only", "davis", "--root", tmp_path / "elsewhere", "--yes")
    assert tree(tmp_path) == [f"elsewhere/{name}" for name in DAVIS_TREE]
    assert {drive_id for drive_id, _ in provider.asked} == {part.drive_id for part in PARTS if part.data_set == "davis"}


def test_a_finished_part_is_not_fetched_again(start, provider, tmp_path):
    start(download_datasets, "--only", "youtube", "--yes")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if "/valid/" not in str(path)}
    for path in sorted((tmp_path / "YouTube/valid").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()                     # an empty folder is not a finished one
    start(download_datasets, "--only", "youtube", "--yes")
    assert {drive_id for drive_id, _ in provider.asked} == {IDS["YouTube/valid"]}
    assert tree(tmp_path) == YOUTUBE_TREE
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_nothing_happens_unconfirmed(start, provider, tmp_path, monkeypatch):
    start(download_datasets, refused="nobody is there to confirm this; say --yes")
    start(download_bl30k, refused="nobody is there to confirm this; say --yes")
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})("no\n\ny\n"))
    for script in (download_datasets, download_bl30k):
        start(script, refused="not confirmed, nothing was downloaded")
    assert tree(tmp_path) == []
    start(download_bl30k, "--only", "a")
    assert len(tree(tmp_path)) == 3


def test_what_is_withheld_keeps_no_other_back(start, provider, tmp_path):
    provider.ways[IDS["DAVIS/2017/trainval"]] = ["quota"]
    shown = start(download_datasets, "--only", "davis", "--yes", refused="^2 archives could not be had, see above: "
                  "DAVIS/2017/trainval, DAVIS/2017/trainval/Scribbles$")
    assert "DAVIS/2017/trainval: size unknown" in shown.out
    assert "room needed: at least" in shown.out
    by_hand = tmp_path / "DAVIS/2017/DAVIS-2017-trainval-480p.zip"
    assert "put it at ../DAVIS/2017/DAVIS-2017-trainval-480p.zip" in shown.err
    assert tree(tmp_path) == [name for name in DAVIS_TREE if "trainval" not in name]
    by_hand.write_bytes(provider.files[IDS["DAVIS/2017/trainval"]])          # as the message says
    start(download_datasets, "--only", "davis", "--yes")
    assert tree(tmp_path) == DAVIS_TREE
    assert {drive_id for drive_id, _ in provider.asked} == {IDS["DAVIS/2017/trainval/Scribbles"]}


def test_a_damaged_archive_is_put_aside_and_fetched_again(start, provider, tmp_path):
    whole = provider.files[IDS["static"]]
    for content, message in ((whole[:-50], "the archive is damaged"), (make_zip("a.txt"), "no DUTS-TR and fss in it"),
                             (make_zip("../out.txt"), "leads out of the folder")):
        provider.files[IDS["static"]] = content
        start(download_datasets, "--only", "static", "--yes", refused=rf"static_data.zip: .*{message}.*; it is "
              r"\.\./static_data.zip.damaged now, delete it and run this again to download another$")
        assert os.listdir(tmp_path / "project") == []
        assert sorted(os.listdir(tmp_path)) == ["project", "static_data.zip.damaged"]
    provider.files[IDS["static"]] = whole
    start(download_datasets, "--only", "static", "--yes")
    assert sorted(os.listdir(tmp_path)) == ["project", "static", "static_data.zip.damaged"]


def test_a_cut_that_the_server_hides_shows_in_the_archive(start, provider, tmp_path):
    provider.ways[IDS["static"]] = ["no size cut"]
    out = start(download_datasets, "--only", "static", "--yes", refused="static_data.zip: the archive is damaged").out
    assert "../static: size unknown" in out
    assert "1 size unknown" in out


def test_other_peoples_folders_are_left_alone(start, provider, tmp_path):
    (tmp_path / "YouTube/train").mkdir(parents=True)
    (tmp_path / "YouTube/train/thesis.txt").write_text("years of work")
    start(download_datasets, "--yes", refused="YouTube/train: is not empty, and lacks Annotations, JPEGImages; move it")
    assert tree(tmp_path) == ["YouTube/train/thesis.txt"]
    assert not provider.asked


def test_what_is_here_already_takes_no_room(start, provider, tmp_path):
    size = len(provider.files[IDS["static"]])
    (tmp_path / "static_data.zip.part").write_bytes(provider.files[IDS["static"]][:1500])
    shown = start(download_datasets, "--only", "static", refused="confirm")
    assert f"../static: {readable(size)}, 1.5 kB here\nroom needed: at least {readable(2 * size - 1500)}\n" in shown.out


def test_what_will_not_fit_is_not_begun(start, provider, tmp_path, monkeypatch):
    monkeypatch.setattr("util.space.free_space", lambda _: 5000)
    sizes = [len(provider.files[part.drive_id]) for part in PARTS if part.data_set == "davis"]
    peak = max(sum(sizes[:number + 1]) + sizes[number] for number in range(len(sizes)))
    shown = start(download_datasets, "--only", "davis", "--yes",
                  refused=r"what is to be downloaded needs .* and 5\.0 kB are free; free .* more$")
    assert f"at least {peak / 1000:.1f} kB" in shown.out
    assert tree(tmp_path) == []


def test_no_network_gets_one_line(start):
    drive = Drive("http://127.0.0.1:9/", tries=2, pause=0)
    for script, name in ((download_datasets, "static_data.zip"), (download_bl30k, "BL30K_a.tar"),
                         (download_model, "propagation_model.pth")):
        shown = start(script, *(["--yes"] if script is not download_model else []), drive=drive,
                      refused=rf"^{name}: cannot be downloaded: no connection \(.*\)$")
        assert shown.out + shown.err == ""


def test_pictures_that_cannot_be_resized_are_named(start, provider, tmp_path):
    whole = provider.files[IDS["YouTube/train"]]
    provider.files[IDS["YouTube/train"]] = make_zip("train/JPEGImages/v/0.jpg", "train/Annotations/v/0.txt")
    shown = start(download_datasets, "--only", "youtube", "--yes")
    assert "done: ../YouTube/train_480p" in shown.out
    (tmp_path / "YouTube/train_480p/JPEGImages/v/0.jpg").unlink()
    (tmp_path / "YouTube/train_480p").rename(tmp_path / "YouTube/.train_480p.partial")
    (tmp_path / "YouTube/train/JPEGImages/v/0.jpg").write_bytes(whole[:300])
    shown = start(download_datasets, "--only", "youtube", "--yes",
                  refused="train_480p: not finished, 1 picture could not be resized")
    assert "0.jpg: cannot be resized" in shown.err
    assert not (tmp_path / "YouTube/train_480p").exists()


def test_the_segments_of_bl30k_become_one(start, provider, tmp_path):
    provider.files[SEGMENTS["b"]] = make_tar("JPEGImages/b/0.jpg", "x/y/Annotations/b/0.png", "readme")
    out = start(download_bl30k, "--only", "a", "b", "--yes").out
    assert "2 segments (a b)" in out
    expected = [f"BL30K/{kind}/{name}/0.{suffix}" for kind, suffix in (("Annotations", "png"), ("JPEGImages", "jpg"))
                for name in "ab"]
    notes = ["BL30K/.BL30K_a.finished", "BL30K/.BL30K_b.finished"]
    assert tree(tmp_path) == sorted(notes + expected)
    start(download_bl30k, "--yes")
    assert {drive_id for drive_id, _ in provider.asked} == {SEGMENTS[name] for name in "cdef"}
    assert [path.name for path in sorted((tmp_path / "BL30K/JPEGImages").iterdir())] == list("abcdef")
    assert sorted(os.listdir(tmp_path / "BL30K"))[6:] == ["Annotations", "JPEGImages"]
    assert "all there" in start(download_bl30k).out
    assert not provider.asked


def test_a_segment_stopped_while_it_was_put_in_place_is_finished(start, provider, tmp_path):
    unpacked = tmp_path / "BL30K/BL30K_a.unpacked/BL30K_a"
    for name in ("JPEGImages/1/0.jpg", "Annotations/0/0.png", "Annotations/1/0.png"):
        (unpacked / name).parent.mkdir(parents=True)
        (unpacked / name).write_text(name)
    (tmp_path / "BL30K/JPEGImages/0").mkdir(parents=True)
    start(download_bl30k, "--only", "a", "--yes")
    assert not provider.asked
    assert tree(tmp_path) == ["BL30K/.BL30K_a.finished", "BL30K/Annotations/0/0.png", "BL30K/Annotations/1/0.png",
                              "BL30K/JPEGImages/1/0.jpg"]


def test_a_segment_without_masks_is_put_aside(start, provider, tmp_path):
    provider.files[SEGMENTS["a"]] = make_tar("JPEGImages/a/0.jpg")
    start(download_bl30k, "--only", "a", "--yes", refused="BL30K_a.tar: there is no Annotations in it; it is")
    assert tree(tmp_path) == ["BL30K/BL30K_a.tar.damaged"]


def test_weights(start, provider, tmp_path):
    assert "done: saves/propagation_model.pth (lite network)" in start(download_model).out
    assert "done: saves/propagation_model_s02.pth" in start(download_model, "--model", "s02").out
    assert {drive_id for drive_id, _ in provider.asked} == {WEIGHTS["s02"][1]}
    names = ["project/saves/propagation_model.pth", "project/saves/propagation_model_s02.pth"]
    assert tree(tmp_path) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == LITE_WEIGHTS.read_bytes()
    assert "saves/propagation_model.pth: is there already, and whole" in start(download_model).out
    assert not provider.asked


def test_weights_that_are_none(start, provider, tmp_path):
    place = tmp_path / "project/saves"
    provider.files[WEIGHTS["s012"][1]] = LITE_WEIGHTS.read_bytes()[:-100]
    start(download_model, refused="propagation_model.pth: not a readable PyTorch weights file.*run this again")
    assert os.listdir(place) == ["propagation_model.pth.damaged"]
    (place / "propagation_model.pth").write_text("<html>a page that a browser saved</html>")
    provider.files[WEIGHTS["s012"][1]] = LITE_WEIGHTS.read_bytes()
    assert "not a readable PyTorch weights file" in start(download_model).err
    assert (place / "propagation_model.pth").read_bytes() == LITE_WEIGHTS.read_bytes()
    assert "a browser saved" in (place / "propagation_model.pth.damaged").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_its_part_and_the_next_goes_on(start, provider, tmp_path, number):
    whole = provider.files[IDS["static"]] = make_zip(*(f"{name}/{i}.jpg" for name in STATIC for i in range(30)))
    provider.ways[IDS["static"]] = ["whole", "slow"]                        # the first only asks for the size
    code = f"from download_datasets import main; from util.drive import Drive; from util.cli import run; " \
           f"run(lambda: main(Drive({provider.address!r})))"
    process = subprocess.Popen([sys.executable, "-c", code, "--only", "static", "--yes", "--root", tmp_path],
                               cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = tmp_path / "static_data.zip.part"
    deadline = time.time() + 30
    while not (part.exists() and part.stat().st_size > 20_000) and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "static_data.zip  " in err                                       # the bar
    assert "B/s" in err
    here = part.read_bytes()
    assert len(here) > 20_000
    assert whole.startswith(here)
    assert sorted(os.listdir(tmp_path)) == ["project", "static_data.zip.part"]
    provider.ways[IDS["static"]] = ["whole"]
    start(download_datasets, "--only", "static", "--yes")
    assert provider.starts(IDS["static"]) == [0, len(here)]                 # asked for the size, then for the rest
    assert sorted(os.listdir(tmp_path)) == ["project", "static"]


@pytest.mark.parametrize("script", ["download_model.py", "download_datasets.py", "download_bl30k.py"])
def test_help(script):
    out = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "stopped goes on" in " ".join(out.split())
