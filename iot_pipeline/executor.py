"""How work is spread: plain picklable functions through one ``concurrent.futures.Executor``."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from iot_pipeline.errors import WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")

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


@contextmanager
def open_executor(workers: int, *, parallel: bool) -> Iterator[Executor]:
    """Open the executor that a load or a detection runs on.

    Args:
        workers: How many processes to use.
        parallel: Whether the work is worth starting processes for.
    """
    if not parallel or workers == 1:
        yield SerialExecutor()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        with _prepared_for_workers():
            wait([pool.submit(int) for _ in range(workers)])  # starts all processes
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


def run_tasks(
    executor: Executor, function: Callable[[Task], Result], tasks: Iterable[Task], *, ahead: int
) -> Iterator[Result]:
    """Run a function over tasks and yield the results as they come, with at most ``ahead`` under way."""
    waiting: set[Future[Result]] = set()
    for task in tasks:
        waiting.add(executor.submit(function, task))
        if len(waiting) >= ahead:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)
