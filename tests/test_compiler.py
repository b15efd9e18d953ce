"""Compiling C++ code."""
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from commands import ROOT, needs_compiler

from model import winograd
from util import compiler

CODE = 'extern "C" int square(int x) { return x * x; }\n'


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("g++") and "CXX" not in os.environ
                         and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")),
                    reason="no GCC, or no x86 Linux with AVX2")
def test_gcc_compiles_the_kernel():
    assert winograd._kernel() is not None


@needs_compiler
@pytest.mark.slow
def test_another_process_uses_compiled_code(tmp_path):
    assert compiler.compile_library(CODE, tmp_path).square(7) == 49
    file, = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    program = (f"from pathlib import Path; from util.compiler import compile_library as compile\n"
               f"print(compile({CODE!r}, Path({str(tmp_path)!r})).square(8))")
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "64\n"
    assert [*tmp_path.iterdir()] == [file]
    assert file.stat().st_mtime_ns == written


@needs_compiler
def test_changed_code_is_compiled_anew(tmp_path):
    assert compiler.compile_library(CODE, tmp_path).square(7) == 49
    assert compiler.compile_library(CODE.replace("x * x", "x + x"), tmp_path).square(7) == 14


@needs_compiler
def test_a_damaged_library_is_compiled_anew(tmp_path):
    compiler.compile_library(CODE, tmp_path)
    file, = tmp_path.iterdir()
    broken = tmp_path / "broken"
    broken.write_bytes(file.read_bytes()[:100])
    broken.replace(file)                            # the loaded library stays as it is
    assert compiler.compile_library(CODE, tmp_path).square(7) == 49


@needs_compiler
def test_threads_that_compile_the_same_code_do_not_disturb_each_other(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        libraries = [*pool.map(lambda _: compiler.compile_library(CODE, tmp_path), range(4))]
    assert [library.square(3) for library in libraries] == [9] * 4
    assert len([*tmp_path.iterdir()]) == 1


@needs_compiler
def test_code_that_cannot_be_kept_is_compiled_for_the_process(tmp_path):
    (tmp_path / "file").write_text("")
    assert compiler.compile_library(CODE, tmp_path / "file").square(6) == 36
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@needs_compiler
@pytest.mark.parametrize("reason", ["no compiler", "CXX with one quote", "a compiler that fails", "wrong code",
                                    "CPU without AVX2", "macOS"])
def test_without_compiled_code_there_is_no_library(reason, tmp_path, monkeypatch, capfd):
    code = "this is not C++" if reason == "wrong code" else CODE
    if reason == "CPU without AVX2":
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    elif reason == "macOS":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        compilers = {"no compiler": str(tmp_path / "missing"), "CXX with one quote": 'g++ "', "wrong code": "",
                     "a compiler that fails": "false"}
        monkeypatch.setenv("CXX", compilers[reason])
    assert compiler.compile_library(code, tmp_path) is None
    assert not [*tmp_path.iterdir()]
    assert capfd.readouterr() == ("", "")


@needs_compiler
def test_another_compiler_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "env g++")
    assert compiler.compile_library(CODE, tmp_path).square(5) == 25


@needs_compiler
@pytest.mark.slow
def test_too_little_memory_is_an_error_not_the_end_of_the_process():
    program = """
import resource
import torch
from model import winograd
x, weight = torch.zeros(1, 2 ** 16, 4, 4), torch.zeros(32, 2 ** 16, 3, 3)
winograd._kernel()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 ** 27, used + 2 ** 27))
try:
    winograd.convolve(x, weight)
except MemoryError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "in winograd.cpp\n"


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="AVX-512 is not there or not used")
def test_compiled_code_works_with_avx2_too():
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/test_winograd.py", "tests/test_memory_bank.py",
                          "-k", "kernel or compiled"], cwd=ROOT, capture_output=True, text=True,
                         env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"})
    assert run.returncode == 0, run.stdout
