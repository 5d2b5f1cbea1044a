"""Runs tasks in this process, in worker processes or on a Dask cluster, all in the same way.

Tasks are calls of plain, picklable functions. Dask reruns the tasks of a killed worker on another one, up to
``distributed.scheduler.allowed-failures`` times. That is safe, because a task's output appears complete or
not at all, and writing it twice gives the same.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError, WorkerError
from iot_pipeline.settings import get_settings

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER = 4
"""How many tasks are submitted at a time for each worker, so that it never waits for the next one."""
CONNECT_SECONDS = 10.0
FIRST_WORKER_SECONDS = 30.0
PACKAGES = ("deltalake", "duckdb", "iot-pipeline", "numpy", "pandas", "pyarrow", "scipy")
"""The packages that a result depends on, besides Python and Dask."""
_SINGLE_THREADED = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")


@dataclass(frozen=True, slots=True)
class Workers:
    """An executor and its capacity.

    Attributes:
        executor: Runs the tasks; None for the calling thread, for work too small to start processes for.
        count: Returns how many tasks it can run at a time now.
    """

    executor: Executor | None = None
    count: Callable[[], int] = lambda: 1

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Call a function for each task and yield the results as they complete."""
        if self.executor is None:
            yield from map(function, tasks)
            return
        waiting: set[Future[Result]] = set()
        for task in tasks:
            waiting.add(self.executor.submit(function, task))
            if len(waiting) >= TASKS_PER_WORKER * self.count():
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def open_workers(*, parallel: bool) -> AbstractContextManager[Workers]:
    """Open the workers of a load or a detection: the configured Dask cluster, or processes.

    Args:
        parallel: Whether there is enough work to start processes for.

    Raises:
        ConfigurationError: The cluster can't be reached, has no workers, or has other versions of the
            packages.
        WorkerError: A worker was killed, or the cluster is gone.
    """
    settings = get_settings()
    if settings.dask_scheduler:
        return _open_cluster(settings.dask_scheduler)
    if parallel and settings.workers > 1:
        return _open_processes(settings.workers)
    return nullcontext(Workers())


@contextmanager
def _open_processes(count: int) -> Iterator[Workers]:
    """Start single-threaded processes, which exit with this one even if it is killed."""
    from loky import ProcessPoolExecutor  # noqa: PLC0415 - nothing else needs it
    from loky.process_executor import BrokenProcessPool  # noqa: PLC0415

    pool = ProcessPoolExecutor(
        count, initializer=_exit_with, initargs=(os.getpid(),), env=_SINGLE_THREADED, timeout=None
    )
    try:
        yield Workers(pool, lambda: count)
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed, perhaps for lack of memory: try again with IOT_WORKERS=1"
        ) from error
    finally:
        pool.shutdown(kill_workers=True)


def _exit_with(parent: int) -> None:
    """Make this worker exit when its parent is gone; otherwise it would wait for work forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _open_cluster(address: str) -> Iterator[Workers]:
    """Connect to the cluster of a scheduler at an address like ``tcp://10.0.0.1:8786``."""
    try:
        from distributed import Client, KilledWorker  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigurationError(
            "IOT_DASK_SCHEDULER needs one more package: pip install '.[dask]'"
        ) from error
    _check_scheduler(address)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(f"IOT_DASK_SCHEDULER: no Dask scheduler answers at {address}") from error
    with client:
        _check_workers(client, address)
        # Without pure=False, Dask would answer a repeated call with the first result.
        executor = client.get_executor(pure=False)
        try:
            yield Workers(executor, lambda: sum(client.nthreads().values()))
        except KilledWorker as error:
            raise WorkerError(
                "workers that ran the same task were killed one after another, perhaps for lack of memory:"
                " give each more of it (dask worker --nthreads 1 --memory-limit …)"
            ) from error
        except CancelledError as error:
            raise WorkerError(
                f"the Dask scheduler at {address} is gone: try again when it is back"
            ) from error
        finally:
            executor.shutdown(wait=False)  # cancels running tasks


def _check_scheduler(address: str) -> None:
    """Fail at once where Dask would retry for half a minute or wait forever."""
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ConfigurationError(f"IOT_DASK_SCHEDULER must be like tcp://host:8786, not {address!r}")
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            is_silent = url.scheme == "tcp" and not connection.recv(1)  # a scheduler speaks first
    except TimeoutError:
        is_silent = True
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"IOT_DASK_SCHEDULER: nothing listens at {address} ({reason})") from error
    if is_silent:
        raise ConfigurationError(f"IOT_DASK_SCHEDULER: no Dask scheduler answers at {address}")


def _check_workers(client: "Client", address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
    except TimeoutError as error:
        raise ConfigurationError(
            f"the cluster of IOT_DASK_SCHEDULER has no workers: start some with dask worker {address}"
        ) from error
    versions = client.get_versions(packages=list(PACKAGES))
    ours = _packages(versions["client"])
    for worker, answer in versions["workers"].items():
        theirs = _packages(answer)
        for name, version in ours.items():
            if theirs.get(name) != version:
                raise ConfigurationError(
                    f"the Dask worker at {worker} has {name} {theirs.get(name) or 'not installed'}, this"
                    f" process {version}: install the same requirements.txt on all machines"
                )


def _packages(answer: dict[str, Any]) -> dict[str, str | None]:
    packages: dict[str, str | None] = answer["packages"]
    python = ".".join(str(packages["python"]).split(".")[:2])
    return {"python": python, **{name: packages.get(name) for name in ("distributed", *PACKAGES)}}
