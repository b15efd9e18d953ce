"""How scripts end, whatever happens to them."""
import argparse
import os
import signal
import subprocess
import sys

import pytest
from commands import ROOT, needs_dev_full

from util.cli import (
    at_least,
    first_line,
    identifier,
    is_out_of_memory,
    non_negative_int,
    pluralize,
    positive_float,
    positive_int,
    seed,
)


def job(body, before=""):
    lines = "\n    ".join(body.splitlines())
    return [sys.executable, "-c", f"import os, sys, time\nfrom util.cli import *\n{before}\ndef main():\n    {lines}\n"
                                  f"run(main)"]


def start(body, before="", **options):
    return subprocess.Popen(job(body, before), cwd=ROOT, text=True, **{"stdout": subprocess.PIPE,
                                                                      "stderr": subprocess.PIPE, **options})


def finish(body, environment=None):
    process = start(body, env={**os.environ, **(environment or {})})
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(("body", "code", "message"), [
    ("pass", 0, ""),
    ("return 3", 3, ""),
    ("raise InputError('f.png: bad; use another')", 2, "error: f.png: bad; use another\n"),
    ("open('no/such')", 2, "error: no/such: No such file or directory\n"),
    ("raise OSError('cannot identify image')", 2, "error: cannot identify image\n"),
    ("raise OSError(28, 'No space left on device', 'f.png')", 2,
     "error: f.png: disk full; free some space and run this again, finished output is kept\n"),
    ("raise MemoryError", 2, "error: not enough memory (MemoryError); close other programs, or work with smaller or "
                             "fewer frames\n"),
    ("raise RuntimeError(\"can't start new thread\")", 2, "error: not enough memory (can't start new thread); close "
                                                          "other programs, or work with smaller or fewer frames\n"),
    ("warn('odd')", 0, "warning: odd\n"),
])
def test_exit_codes_and_messages(body, code, message):
    assert finish(body) == (code, "", message)


def test_bugs_keep_their_traceback():
    code, _, err = finish("{}['x']")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("KeyError: 'x'\n")


def test_tracebacks_on_request():
    body = "try:\n    {}['x']\nexcept KeyError as error:\n    raise InputError('f: bad') from error"
    assert finish(body)[2] == "error: f: bad\n"
    code, _, err = finish(body, {"MASK_PROPAGATION_TRACEBACK": "1"})
    assert code == 2
    assert "KeyError: 'x'" in err
    assert err.endswith("InputError: f: bad\nerror: f: bad\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_work_and_clean_up(number):
    # A signal within print would repeat the line.
    process = start("try:\n    os.write(1, b'on\\n'); time.sleep(60)\nfinally:\n    print('clean')")
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "clean\n", "\ninterrupted: finished output is kept\n")


def test_ignored_signals_stay_ignored():
    process = start("print('on', flush=True); sys.stdin.read()", stdin=subprocess.PIPE,
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))       # as nohup does
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_signals_wait_for_the_end_of_a_deferring_block():
    process = start("with deferred_signals():\n    os.kill(os.getpid(), signal.SIGTERM); print('whole')\n"
                    "print('not reached')")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + signal.SIGTERM, "whole\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_imports_ends_without_a_message(number, tmp_path):
    # as NumPy and PyTorch do, which turn any error into their own
    (tmp_path / "slow.py").write_text("import time\nprint('on', flush=True)\ntry:\n    time.sleep(60)\n"
                                      "except BaseException:\n    raise ImportError('bad install')\n")
    process = start("import slow", f"sys.path.insert(0, {str(tmp_path)!r})")
    process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, "")


def test_ctrl_c_before_main_prints_nothing():
    process = start("pass", "print('on', flush=True); time.sleep(60)")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGINT, "")           # 130 in a shell


def test_names_that_the_terminal_cannot_print():
    code, out, err = finish("print('ä.png'); warn('ö.png'); raise InputError('\\udcff.png')",
                            {"PYTHONIOENCODING": "ascii"})
    assert (code, out, err) == (2, "\\xe4.png\n", "warning: \\xf6.png\nerror: \\udcff.png\n")


@pytest.mark.parametrize("redirect", [pytest.param(">/dev/full", marks=needs_dev_full), ">&-", "2>&-", "<&- >&- 2>&-",
                                      pytest.param("2>/dev/full", marks=needs_dev_full), "| true"])
def test_the_work_goes_on_without_standard_streams(redirect, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(job("for _ in range(3):\n    print('x' * 10000); warn('y' * 10000); time.sleep(0.05)\n"
                          "with open(sys.argv[1], 'w') as file:\n    file.write('whole'); file.flush()\n"
                          "    if '&-' in sys.argv[2]:\n        os.write(2, b'a library prints this')")[2])
    done = subprocess.run(["bash", "-c", f'"$@" {redirect}; exit ${{PIPESTATUS[0]}}', "-", sys.executable, script,
                           tmp_path / "out", redirect], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
                          capture_output=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert (tmp_path / "out").read_text() == "whole"


@pytest.mark.parametrize(("given", "used"), [
    ({}, ("passive", "1000")),
    ({"GOMP_SPINCOUNT": "5"}, ("passive", "5")),
    ({"OMP_WAIT_POLICY": "active"}, ("active", "")),
])
def test_openmp_threads_wait_passively_unless_told_otherwise(given, used):
    names = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    environment = {name: value for name, value in os.environ.items() if name not in names}
    show = f"print(*(os.environ.get(name, '') for name in {names}), sep=',')"
    assert start(show, env={**environment, **given}).communicate()[0] == ",".join(used) + "\n"



def test_the_module_imports_no_library():
    code = "import util.cli, sys; assert not {'torch', 'numpy', 'PIL', 'cv2'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("convert", "text", "value"), [
    (positive_int, "1", 1), (non_negative_int, "0", 0), (at_least(3), "3", 3), (positive_float, "1e-5", 1e-5),
    (identifier, "run_1.a-b+c=d@e", "run_1.a-b+c=d@e"), (seed, "14159265", 14159265)])
def test_arguments_of_a_type(convert, text, value):
    assert convert(text) == value


@pytest.mark.parametrize(("convert", "text", "message"), [
    (positive_int, "0", "'0' is not an integer of at least 1"), (positive_int, "1.5", "not an integer"),
    (non_negative_int, "-1", "'-1' is not an integer of at least 0"), (at_least(3), "2", "of at least 3"),
    (positive_float, "nan", "'nan' is not a number above 0"), (positive_float, "0", "above 0"),
    (positive_float, "inf", "above 0"), (positive_float, "x", "above 0"), (identifier, "a/b", "use letters, digits"),
    (identifier, "", "use letters"), (seed, str(2 ** 63), "more than 63 bits"), (seed, "-1", "of at least 0")])
def test_arguments_that_are_refused(convert, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        convert(text)


def test_words():
    assert [pluralize(number, "video") for number in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert first_line(ValueError("\na\nb")) == "a"
    assert first_line(ValueError()) == "ValueError"
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB). Tried to allocate 1 GB."))
    assert not is_out_of_memory(ImportError("libGL.so.1: cannot open shared object file"))
