"""The measurement of training steps: it runs, and says what it measured."""
import subprocess
import sys


def run(*args):
    return subprocess.run([sys.executable, "-m", "scripts.benchmark_training", *args], capture_output=True, text=True)


def test_a_row_for_each_kind_of_sample():
    result = run("--network", "lite", "--device", "cpu", "--batch_size", "2", "--size", "64", "--repeats", "2")
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()[4:]]
    assert [row[:2] for row in rows] == [["0", "1"], ["1 to 3", "2"]]
    for _, _, seconds, samples, megabytes in rows:
        assert abs(float(samples) * float(seconds) - 2) < 0.02
        assert float(megabytes) > 100


def test_what_cannot_be_measured_is_said():
    for arguments, word in ((["--size", "100"], "multiple of 16"), (["--frames", "1"], "two or more"),
                            (["--batch_size", "0"], "--batch_size")):
        result = run(*arguments)
        assert result.returncode == 2
        assert word in result.stderr
        assert "Traceback" not in result.stderr
