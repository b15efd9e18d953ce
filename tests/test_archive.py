"""Unpacking archives that want more than they should."""
import errno
import io
import random
import stat
import tarfile
import zipfile

import pytest

import util.archive
from util.archive import unpack
from util.cli import InputError
from util.members import Damaged


def make_zip(path, *members):
    """Members are (name, content), or (name, content, mode)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, *mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode or [stat.S_IFREG | 0o644])[0] << 16
            archive.writestr(info, content)
    return path


def make_tar(path, *members, compression=""):
    """Members are (name, content), or (name, where a link leads, type)."""
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, content, *kind in members:
            info = tarfile.TarInfo(name)
            if kind:
                info.type, info.linkname = kind[0], content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "deep/target"
    folder.mkdir(parents=True)
    return folder


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_what_is_in_comes_out(tmp_path, target, name):
    big = bytes(range(256)) * 10_000
    make = make_zip if name == "x.zip" else make_tar
    unpack(make(tmp_path / name, ("a/b.txt", b"text"), ("./a/big.bin", big), ("__MACOSX/a/._b.txt", b"litter"),
                ("a/.DS_Store", b"litter"), **{"compression": "gz"} if "gz" in name else {}), target)
    assert content(target) == {"a/b.txt": b"text", "a/big.bin": big}


EVIL = ["../out.txt", "a/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt", "a/.."]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_lead_out(tmp_path, target, make, name):
    archive = make(tmp_path / ("x.zip" if make is make_zip else "x.tar"), ("good.txt", b"x"), (name, b"bad"))
    with pytest.raises(Damaged, match="leads out of the folder"):
        unpack(archive, target)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["good.txt", archive.name]


@pytest.mark.parametrize("where", ["/etc/passwd", "../secret", "in/../../../secret", "..\\secret"])
def test_links_that_lead_out(tmp_path, target, where):
    (tmp_path / "deep/secret").write_text("mine")
    for index, archive in enumerate((
            make_tar(tmp_path / "soft.tar", ("link", where, tarfile.SYMTYPE), ("link/x", b"bad")),
            make_tar(tmp_path / "hard.tar", ("link", where, tarfile.LNKTYPE)),
            make_zip(tmp_path / "soft.zip", ("link", where, stat.S_IFLNK | 0o777), ("link/x", b"bad")))):
        place = target / str(index)
        place.mkdir()
        with pytest.raises(Damaged, match="leads out of the folder"):
            unpack(archive, place)
        assert not list(place.iterdir())
    assert (tmp_path / "deep/secret").read_text() == "mine"


def test_links_that_stay_inside(tmp_path, target, capsys):
    unpack(make_tar(tmp_path / "x.tar", ("a/b", b"text"), ("c/hard", "a/b", tarfile.LNKTYPE),
                    ("c/soft", "../a/b", tarfile.SYMTYPE)), target)
    assert content(target) == {"a/b": b"text", "c/hard": b"text"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert "warning: c/soft is a symbolic link: left out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices(tmp_path, target, kind):
    with pytest.raises(Damaged, match="null is neither file nor folder"):
        unpack(make_tar(tmp_path / "x.tar", ("null", "", kind)), target)
    assert not list(target.iterdir())


def test_a_file_that_is_also_a_folder(tmp_path, target):
    with pytest.raises(Damaged, match="the archive is damaged"):
        unpack(make_zip(tmp_path / "x.zip", ("a", b"x"), ("a/b", b"x")), target)


NOISE = [random.Random(seed).randbytes(30_000) for seed in range(3)]


@pytest.mark.parametrize("damage", ["cut", "cut between members", "garbled header", "flipped", "empty", "page"])
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_damaged_archives(tmp_path, target, name, damage):
    members = [(f"a/{index}", noise) for index, noise in enumerate(NOISE)]
    path = tmp_path / name
    if name == "x.zip":
        make_zip(path, *members)
    else:
        make_tar(path, *members, compression="gz" if "gz" in name else "")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:len(data) // 2]
    elif damage == "cut between members":
        data = data[:2 * (512 + 30_208)]
    elif damage == "garbled header":
        data[512 + 30_208 + 20:512 + 30_208 + 60] = b"\x99" * 40
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
        if name == "x.tar":
            pytest.skip("a .tar has no sum over what is in it")
    else:
        data = b"" if damage == "empty" else b"<!DOCTYPE html><html>no</html>"
    path.write_bytes(data)
    with pytest.raises(Damaged, match=rf"{name}: the archive is damaged \(.+\)$"):
        unpack(path, target)


def test_an_encrypted_zip(tmp_path, target):
    path = make_zip(tmp_path / "x.zip", ("a", b"x" * 100))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match="encrypted"):
        unpack(path, target)


def test_it_is_not_begun_if_it_will_not_fit(tmp_path, target, monkeypatch):
    path = make_zip(tmp_path / "x.zip", ("a", bytes(3_000_000)))         # compresses to nearly nothing
    monkeypatch.setattr("util.space.free_space", lambda _: 1_000_000)
    with pytest.raises(InputError, match=r"what is in x.zip needs 3.0 MB and 1.0 MB are free; free 2.0 MB more"):
        unpack(path, target)
    assert not list(target.iterdir())


def test_a_disk_that_is_full_after_all(tmp_path, target, monkeypatch):
    written = 0

    def write_all(file, data):
        nonlocal written
        written += len(data)
        if written > 2_500_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(data)
    monkeypatch.setattr(util.archive, "write_all", write_all)
    path = make_tar(tmp_path / "x.tar", *((str(index), bytes(1_000_000)) for index in range(4)))
    with pytest.raises(InputError, match=r"the disk is full, 2.0 MB more are needed; free some and run this again: "
                                         r".*x.tar is kept") as caught:
        unpack(path, target)
    assert not isinstance(caught.value, Damaged)
