"""The process group: every process ends when one fails."""
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from commands import ROOT, free_port

from util.cli import InputError
from util.device import ProcessGroup, pick_device

JOB = """
from util.cli import InputError, run

def main():
    from util.device import ProcessGroup
    group = ProcessGroup.join()
    print(group.any(group.rank == 1), group.any(False), group.gather(group.rank))
    if group.rank == 1:
        raise InputError("f.png: bad")
    group.gather("never")

run(main)
"""


def start(*ranks):
    port = free_port()
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [subprocess.Popen([sys.executable, "-c", JOB], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env={**environment, "RANK": str(rank)}) for rank in ranks], port


@pytest.mark.slow
def test_a_process_that_waits_for_the_others_can_be_interrupted():
    (process,), port = start(0)
    for _ in range(600):                     # until it listens for the other process
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    time.sleep(0.5)
    process.terminate()
    assert process.wait(timeout=10) == -signal.SIGTERM


@pytest.mark.slow
def test_processes_exchange_values_and_one_that_fails_ends_the_other():
    processes, _ = start(0, 1)
    results = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    values = "True False [0, 1]\n"
    assert results == [(values, "error: another process of this run has failed; see its error above\n", 2),
                       (values, "error: f.png: bad\n", 2)]


def test_a_single_process_needs_no_connection():
    group = ProcessGroup.join()
    assert (group.rank, group.world_size) == (0, 1)
    assert (group.any(True), group.any(False), group.gather("x")) == (True, False, ["x"])


@pytest.mark.parametrize(("variables", "message"), [
    ({"WORLD_SIZE": "2"}, r"WORLD_SIZE=2: cannot reach .*RANK expected.*start them with torchrun, or unset WORLD_SIZE"),
    ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x: cannot reach"),
    ({"WORLD_SIZE": "2", "RANK": "y", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "WORLD_SIZE=2: cannot reach"),
])
def test_variables_without_torchrun(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        ProcessGroup.join()


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:x"])
def test_devices_that_are_not_there(name):
    with pytest.raises(InputError, match=f"--device {name}: not available on this machine"):
        pick_device(name)


def test_mps_that_cannot_allocate_is_not_the_default(monkeypatch):
    allocate = torch.empty

    def empty(size, device):
        if str(device) == "mps":
            raise RuntimeError("MPS backend out of memory")
        return allocate(size, device=device)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.empty", empty)
    assert pick_device() == torch.device("cpu")
    with pytest.raises(InputError, match="--device mps: not available on this machine"):
        pick_device("mps")
