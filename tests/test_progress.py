"""Progress bars with and without a terminal."""
import os
import pty
import re
import subprocess
import sys

import pytest
from commands import ROOT, needs_dev_full

JOB = """
import sys, time
from util.cli import run

def main():
    from util import progress
    seconds, stop = float(sys.argv[1]), int(sys.argv[2])
    progress.SECONDS_BETWEEN_LINES = seconds or progress.SECONDS_BETWEEN_LINES
    start = time.monotonic()
    with progress.progress_bar(300, "frames") as bar:
        for index in range(300):
            bar.increment()
            time.sleep(0.004)
            if index + 1 == stop:
                raise OSError("stopped")
    print("done")
    print(time.monotonic() - start)

run(main)
"""


def run_job(seconds, stop=0):
    return subprocess.run([sys.executable, "-c", JOB, str(seconds), str(stop)], cwd=ROOT, text=True, check=False,
                          capture_output=True)


def test_a_pipe_gets_few_lines_and_the_last_is_complete():
    result = run_job(0)
    _, final = result.stderr.splitlines()        # the work takes less than 10 s
    assert re.match(r"300 of 300 frames 100% \|#+\| *\d+\.\d\d frames/s", final)
    assert result.stdout.startswith("done\n")


def test_lines_come_at_intervals():
    result = run_job(0.2)
    assert 4 <= len(result.stderr.splitlines()) <= float(result.stdout.split()[1]) / 0.2 + 3


def test_an_error_comes_after_the_last_state_of_the_bar():
    _, last, message = run_job(0, stop=200).stderr.splitlines()
    assert last.startswith("200 of 300 frames")
    assert message == "error: stopped"


def test_a_terminal_gets_one_line_that_changes():
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", JOB, "0", "0"], cwd=ROOT, stderr=follower)
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 1 << 16):
            shown += data
    except OSError:                                  # Linux: the other side is closed
        pass
    os.close(leader)
    assert process.wait() == 0
    assert shown.count(b"\n") == 1
    assert shown.count(b"\r") > 5


@pytest.mark.parametrize("redirect", ["2>&-", pytest.param("2>/dev/full", marks=needs_dev_full), ">&- 2>&-"])
def test_without_standard_error_the_work_is_done(redirect, tmp_path):
    job = tmp_path / "job.py"
    job.write_text(JOB)
    result = subprocess.run(f"'{sys.executable}' {job} 0 0 {redirect}", shell=True, cwd=ROOT, check=False,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert result.returncode == 0
    assert result.stdout.splitlines()[:1] == ([] if "&- 2" in redirect else [b"done"])
