"""The process pool: what happens to jobs when one fails or is killed."""
import os
import time
from functools import partial
from pathlib import Path

import pytest

from util.cli import InputError
from util.parallel import run_jobs


def touch(path):
    time.sleep(0.1)
    Path(path).touch()


def fail(error):
    raise error


def test_unusable_input_costs_no_other_job(tmp_path):
    jobs = [partial(touch, tmp_path / "a"), partial(fail, InputError("bad")), partial(touch, tmp_path / "b")]
    assert [str(error) for error in run_jobs(jobs, 2, "files")] == ["bad"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert run_jobs([], 2, "files") == []


def test_any_other_error_cancels_the_jobs_that_have_not_started(tmp_path):
    jobs = [partial(fail, OSError("full")), *(partial(touch, tmp_path / str(number)) for number in range(60))]
    with pytest.raises(OSError, match="full"):
        run_jobs(jobs, 1, "files")
    done = len(list(tmp_path.iterdir()))
    assert done < 5
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == done


def test_a_killed_worker_is_reported():
    with pytest.raises(InputError, match="a worker process was killed"):
        run_jobs([partial(os._exit, 1)], 1, "files")
