"""``--help`` is fast: it loads none of the large packages."""
import subprocess
import sys

import pytest
from commands import ROOT

SCRIPTS = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py"))
           if "__main__" in path.read_text()]
LARGE = {"torch", "torchvision", "cv2", "numpy", "PIL", "progressbar"}
CODE = """
import runpy, sys
sys.path.insert(0, ".")
sys.argv, script = ["x", "--help"], sys.argv[1]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
print("loaded:", *sys.modules)
"""


@pytest.mark.slow
def test_help_loads_no_large_package():
    assert len(SCRIPTS) > 14
    processes = {script: subprocess.Popen([sys.executable, "-c", CODE, script], cwd=ROOT, text=True,
                                          stdout=subprocess.PIPE) for script in SCRIPTS}
    loaded = {script: set(process.communicate()[0].rpartition("loaded:")[2].split()) & LARGE
              for script, process in processes.items()}
    assert not {script: names for script, names in loaded.items() if names}
    assert all(process.returncode == 0 for process in processes.values())
