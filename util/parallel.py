"""Jobs in several processes."""
from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from util.cli import InputError
from util.progress import frames_bar


def run_jobs(jobs: Sequence[Callable[[], object]], workers: int, what: str) -> list[InputError]:
    """Call all jobs in a pool of processes, with a progress bar over them.

    Args:
        jobs: picklable.
        workers: processes.
        what: the bar counts.

    Returns:
        the InputErrors of jobs that failed; the other jobs are done.

    Raises:
        InputError: a worker was killed.
        Exception: any other error of a job. Running jobs are finished, the rest are cancelled.
    """
    if not jobs:
        return []
    failures, pool = [], ProcessPoolExecutor(workers, initializer=_ignore_signals)
    with frames_bar(len(jobs), what) as bar:
        try:
            for future in as_completed([pool.submit(job) for job in jobs]):
                try:
                    future.result()
                except InputError as error:
                    failures.append(error)
                except BrokenProcessPool:
                    raise InputError("a worker process was killed, probably for lack of memory; use fewer --workers"
                                     ) from None
                bar.increment()
        finally:
            pool.shutdown(cancel_futures=True)
    return failures


def _ignore_signals() -> None:
    """Only the main process handles signals."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
