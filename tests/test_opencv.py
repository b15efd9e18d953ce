"""A machine on which OpenCV cannot be loaded."""
import os
import subprocess

import pytest
from commands import ROOT, command

SCRIPTS = ["train.py", "propagate.py", "try_correspondence.py", "eval_davis.py", "scripts/draw_clip.py",
           "scripts/demo.py"]


def start(tmp_path, script, raises):
    """Start a script where ``import cv2`` raises that."""
    package = tmp_path / "cv2"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {raises}\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(script, "--help"), cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_system_library_gets_the_line_that_mends_it(tmp_path, script):
    process = start(tmp_path, script, "ImportError('libGL.so.1: cannot open shared object file: No such file')")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.splitlines() == [err.strip()], err
    assert err.startswith("error: OpenCV cannot be loaded (libGL.so.1: ")
    assert "apt-get install libgl1 libglib2.0-0" in err
    assert "opencv-python-headless" in err


def test_a_missing_package_gets_another(tmp_path):
    process = start(tmp_path, "scripts/draw_clip.py", "ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err == "error: OpenCV cannot be loaded (No module named 'cv2'); mend it with " \
                  "`pip install -r requirements.txt`\n"


def test_nothing_loads_it_elsewhere():
    importing = [path.relative_to(ROOT).as_posix() for folder in (".", "dataset", "inference", "model", "util", "scripts")
                 for path in (ROOT / folder).glob("*.py")
                 if any(line.strip().startswith(("import cv2", "from cv2")) for line in path.read_text().splitlines())]
    assert importing == ["util/opencv.py"]
