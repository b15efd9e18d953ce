"""A machine on which OpenCV cannot be loaded."""
import os
import subprocess

import pytest
from commands import ROOT, command


def draw_clip(folder, raises):
    """Run a script that uses OpenCV where ``import cv2`` raises that."""
    package = folder / "cv2"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {raises}\n")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command("scripts/draw_clip.py", folder / "clip"), cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=False)


@pytest.mark.parametrize(("raises", "message"), [
    ("ImportError('libGL.so.1: cannot open shared object file: No such file')",
     "OpenCV cannot be loaded (libGL.so.1: cannot open shared object file: No such file); install it with `apt-get "
     "install libgl1 libglib2.0-0`, or `pip uninstall opencv-python` and `pip install opencv-python-headless`, which "
     "has no windows and needs fewer libraries"),
    ("ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')",
     "OpenCV cannot be loaded (No module named 'cv2'); install it with `pip install -r requirements.txt`"),
    ("ImportError('libx.so: failed to map segment from shared object')",
     "not enough memory (libx.so: failed to map segment from shared object); close other programs, or work with "
     "smaller or fewer frames"),
])
def test_one_line_with_the_remedy(raises, message, tmp_path):
    result = draw_clip(tmp_path, raises)
    assert (result.returncode, result.stderr) == (2, f"error: {message}\n")


def test_it_is_imported_in_one_place_only():
    importing = [path.relative_to(ROOT).as_posix()
                 for folder in (".", "dataset", "inference", "model", "util", "scripts")
                 for path in (ROOT / folder).glob("*.py")
                 if any(line.strip().startswith(("import cv2", "from cv2")) for line in path.read_text().splitlines())]
    assert importing == ["util/opencv.py"]
