"""Downloads from Google Drive: files, and archives that are extracted into data set folders."""
from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from util.cli import InputError, first_line, pluralize, warn
from util.files import atomic_folder, lock, prepare_folder


class Source(NamedTuple):
    """A file on Google Drive."""
    path: str                    # where it is saved, below the root folder
    drive_id: str
    size: float                  # approximate, in GB; the images in an archive take about as much when extracted
    folder: str = ""             # where the data in an archive is moved to, below the root folder
    holds: tuple[str, ...] = ("JPEGImages", "Annotations")      # subfolders of the data, at any depth of the archive
    shared: bool = False         # several archives fill the folder; a .finished file marks each that is installed


class DataSet(NamedTuple):
    """What a user should know before downloading a data set, and where it comes from."""
    name: str
    terms: str
    citations: tuple[str, ...]
    sources: Sequence[Source]


def parse_arguments(description: str, names: Iterable[str]) -> argparse.Namespace:
    """Parse the command line of a script that downloads data sets, and create the root folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(names), nargs="+", default=list(names), help="default: all of them")
    parser.add_argument("--root", type=Path, default=Path(".."), metavar="DIR", help="parent folder (default: ..)")
    parser.add_argument("--yes", action="store_true", help="do not ask before downloading")
    args = parser.parse_args()
    prepare_folder(args.root)
    return args


def confirm(data_sets: Sequence[DataSet], root: Path, yes: bool) -> None:
    """Print terms, citations and sizes, check the free space, and ask the user unless ``yes`` is set."""
    for name, terms, citations, sources in data_sets:
        print(name, f"  terms: {terms}", *(f"  cite: {citation}" for citation in citations),
              *(f"  {root / source.path}: about {source.size} GB" for source in sources), sep="\n")
    sources = [source for data_set in data_sets for source in data_set.sources
               if not (root / source.path).with_suffix(".extracted").exists()]
    sizes = [source.size for source in sources]
    files = [file for source in sources for file in (root / source.path).parent.glob(Path(source.path).name + "*")]
    present = sum(file.stat().st_size for file in files if file.suffix != ".damaged") / 1e9     # partial downloads too
    needed = max(sum(sizes) + max(sizes, default=0) - present, 0)       # each archive is deleted before the next one
    free = shutil.disk_usage(root).free / 1e9
    print(f"about {needed:.1f} GB needed, {free:.1f} GB free", flush=True)
    if needed > free:
        raise InputError(f"{root}: not enough space; free {needed - free:.1f} GB more")
    if not yes:
        print("Download? [y/N] ", end="", flush=True)
        if sys.stdin is None or sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise InputError("not confirmed, nothing was downloaded; to skip the question, use --yes")


def download(source: Source, root: Path) -> None:
    """Download a file into an existing folder unless it is there, resuming a partial download.

    Raises InputError if this file is refused (quota, sign-in), and ConnectionError if the connection fails repeatedly.
    """
    path = root / source.path
    if path.is_file():
        return
    os.environ.setdefault("TQDM_MININTERVAL", "0.1" if sys.stderr.isatty() else "10")     # seconds a progress line
    import gdown
    try:
        gdown.download(id=source.drive_id, output=str(path), resume=True, use_cookies=False, timeout=60, retries=5)
    except gdown.exceptions.FileURLRetrievalError as error:
        raise InputError(f"{path.name}: Google Drive serves a web page instead of the file (quota used up, or sign-in "
                         f"required); try again later, or open https://drive.google.com/file/d/{source.drive_id}/view "
                         f"in a browser and save the file as {path}") from error
    except gdown.exceptions.DownloadError as error:
        raise ConnectionError(f"{path.name}: download failed ({first_line(error)}); run this again to resume, or "
                              f"delete {path}*.part to start from the beginning") from error


def set_aside(path: Path, error: InputError) -> InputError:
    """Rename an unusable file, so that it can be downloaded again, and return the error to raise."""
    aside = path.replace(path.with_name(f"{path.name}.damaged"))
    return InputError(f"{error}; it was renamed to {aside.name}, run this again to download another")


def extract(archive: Path, folder: Path) -> None:
    """Extract a .zip or .tar archive; nothing is placed outside the folder."""
    print(f"extracting {archive}", flush=True)
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)
        else:
            with tarfile.open(archive) as file:
                while (member := file.next()) is not None:
                    file.extract(member, folder, filter="data")
                    file.members.clear()                    # BL30K has millions, which would fill the memory
                file.fileobj.seek(file.offset)              # tarfile takes an invalid header for the end
                if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("incomplete")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{archive}: the archive is damaged ({first_line(error)})") from error
    shutil.rmtree(folder / "__MACOSX", ignore_errors=True)


def is_installed(source: Source, root: Path) -> bool:
    """Return whether the source's folder has its data, and no move of data into it was interrupted."""
    archive, folder = root / source.path, root / source.folder
    present = [archive.with_suffix(".finished")] if source.shared else [folder / name for name in source.holds]
    return all(path.exists() for path in present) and not archive.with_suffix(".extracted").exists()


def install(source: Source, root: Path) -> None:
    """Download and extract an archive, move the data to the source's folder, and delete the archive."""
    archive, folder = root / source.path, root / source.folder
    extracted = archive.with_suffix(".extracted")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with lock(archive):
        if not extracted.is_dir():              # otherwise, a run was interrupted while it moved the data
            download(source, root)
            try:
                with atomic_folder(extracted) as new:
                    extract(archive, new)
                    present = {name for _, folders, _ in os.walk(new) for name in folders}
                    if not present.issuperset(source.holds):
                        raise InputError(f"{archive}: no {' or no '.join(source.holds)} in the archive")
            except InputError as error:
                raise set_aside(archive, error) from error
        if source.shared:
            archive.with_suffix(".finished").touch()
        archive.unlink(missing_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for place, folders, _ in os.walk(extracted, topdown=False):
            if not set(source.holds).isdisjoint(folders):
                if folder.exists():
                    shutil.copytree(place, folder, dirs_exist_ok=True, copy_function=shutil.move)
                else:
                    shutil.move(place, folder)
        shutil.rmtree(extracted, ignore_errors=True)


def install_all(data_sets: Iterable[DataSet], root: Path, yes: bool) -> None:
    """Install the missing data one archive after the other; one that is refused or damaged does not stop the others."""
    data_sets = [data_set._replace(sources=[source for source in data_set.sources if not is_installed(source, root)])
                 for data_set in data_sets]
    sources, failed = [source for data_set in data_sets for source in data_set.sources], []
    if sources:
        confirm([data_set for data_set in data_sets if data_set.sources], root, yes)
    for source in sources:
        try:
            install(source, root)
        except InputError as error:
            warn(str(error))
            failed.append(source.path)
    if failed:
        raise InputError(f"{pluralize(len(failed), 'archive')} not installed, see above: {', '.join(failed)}")
