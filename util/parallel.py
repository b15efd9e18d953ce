"""Work in several threads or processes."""
from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from util.cli import InputError, ignore_signals
from util.progress import progress_bar

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """``map(function, items)`` in threads that work a few items ahead of the consumer; 0 workers: without threads."""
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def run_jobs(jobs: Sequence[Callable[[], object]], workers: int, unit: str) -> list[InputError]:
    """Call all jobs in a pool of processes, with a progress bar, and return the InputErrors of those that failed.

    Any other error is raised; jobs that have not started are then cancelled.
    """
    if not jobs:
        return []
    failures = []
    if os.name == "nt":
        workers = min(workers, 61)              # the limit of ProcessPoolExecutor
    with ProcessPoolExecutor(workers, initializer=ignore_signals) as pool, progress_bar(len(jobs), unit) as bar:
        try:
            for future in as_completed([pool.submit(job) for job in jobs]):
                try:
                    future.result()
                except InputError as error:
                    failures.append(error)
                bar.increment()
        except BrokenProcessPool as error:
            raise InputError("a worker process was killed, probably for lack of memory; use fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return failures
