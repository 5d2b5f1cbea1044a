"""How work is spread: plain picklable functions through one ``concurrent.futures.Executor``."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from iot_pipeline.errors import WorkerError
from iot_pipeline.settings import get_settings

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 4
"""How many tasks per worker are under way: a worker that is done has the next one at hand."""
_SINGLE_THREADED = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")


class SerialExecutor(Executor):
    """Runs each task at once in the calling thread: right for work that is done before a process starts."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Run a task and return its finished future."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class Workers:
    """What tasks run on.

    Attributes:
        executor: Takes the tasks.
        count: Says how many of them it can run at a time now.
    """

    executor: Executor
    count: Callable[[], int]

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Run a function over tasks and yield the results as they come, with few more tasks under way."""
        waiting: set[Future[Result]] = set()
        for task in tasks:
            waiting.add(self.executor.submit(function, task))
            if len(waiting) >= AHEAD * self.count():
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


NO_WORKERS = Workers(SerialExecutor(), lambda: 1)
"""Runs the tasks right here."""


@contextmanager
def open_workers(*, parallel: bool) -> Iterator[Workers]:
    """Open what a load or a detection runs on: the Dask cluster of the setting, or processes of its own.

    Args:
        parallel: Whether the work is worth starting processes for.

    Raises:
        ConfigurationError: The cluster can't be used.
        WorkerError: A worker was killed, or the cluster has gone.
    """
    settings = get_settings()
    if settings.dask_scheduler:
        from iot_pipeline.cluster import open_cluster  # noqa: PLC0415 - optional

        with open_cluster(settings.dask_scheduler) as (executor, count):
            yield Workers(executor, count)
    elif parallel and settings.workers > 1:
        with _open_processes(settings.workers) as pool:
            yield Workers(pool, lambda: settings.workers)
    else:
        yield NO_WORKERS


@contextmanager
def _open_processes(count: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:
        with _prepared_for_workers():
            wait([pool.submit(int) for _ in range(count)])  # starts all processes
        try:
            yield pool
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process was killed, perhaps for lack of memory: try again with IOT_WORKERS=1"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed; it would wait for work for ever."""

    def wait_for_the_end() -> None:
        parent = multiprocessing.parent_process()
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


@contextmanager
def _prepared_for_workers() -> Iterator[None]:
    """Let new processes compute on one thread each, and not run the caller's script again.

    A worker imports the caller's main module first, so a script without the ``__main__`` guard would start
    itself over. The workers need nothing of it.
    """
    main, environment = sys.modules["__main__"], dict(os.environ)
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(_SINGLE_THREADED)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in _SINGLE_THREADED:
            os.environ.pop(name)
            if name in environment:
                os.environ[name] = environment[name]
