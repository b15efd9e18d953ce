"""Compiling C++ code."""
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from commands import ROOT

from model import winograd
from util import compiler

CODE = 'extern "C" int square(int x) { return x * x; }\n'
can_compile = pytest.mark.skipif(winograd._kernel() is None, reason="no C++ compiler with OpenMP, or no x86 Linux")


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("g++") and shutil.which("c++")
                         and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")),
                    reason="no GCC, or no x86 Linux with AVX2")
def test_gcc_compiles_the_kernel():
    assert winograd._kernel() is not None


@can_compile
def test_code_is_compiled_once(tmp_path):
    assert compiler.compile_library(CODE, tmp_path).square(7) == 49
    file, = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    program = f"from pathlib import Path; from util.compiler import compile_library as compile\n" \
              f"print(compile({CODE!r}, Path({str(tmp_path)!r})).square(8))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout == "64\n"
    assert [*tmp_path.iterdir()] == [file]
    assert file.stat().st_mtime_ns == written
    compiler.compile_library(CODE + "\n", tmp_path)
    assert len([*tmp_path.iterdir()]) == 2


@can_compile
def test_threads_that_compile_the_same_code_do_not_disturb_each_other(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        libraries = [*pool.map(lambda _: compiler.compile_library(CODE, tmp_path), range(4))]
    assert [library.square(3) for library in libraries] == [9] * 4
    assert len([*tmp_path.iterdir()]) == 1


@can_compile
@pytest.mark.parametrize("reason", ["no compiler", "wrong code", "folder that is a file", "CPU without AVX2", "macOS"])
def test_without_compiled_code_there_is_no_library(reason, tmp_path, monkeypatch, capfd):
    folder, code = tmp_path / "folder", CODE
    if reason == "no compiler":
        monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    elif reason == "wrong code":
        code = "this is not C++"
    elif reason == "folder that is a file":
        folder.write_text("")
    elif reason == "macOS":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    assert compiler.compile_library(code, folder) is None
    assert not folder.is_dir() or not [*folder.iterdir()]
    assert capfd.readouterr() == ("", "")


@can_compile
def test_another_compiler_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "env c++")
    assert compiler.compile_library(CODE, tmp_path).square(5) == 25
