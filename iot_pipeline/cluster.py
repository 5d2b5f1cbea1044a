"""A Dask cluster as an executor: other machines run the same functions on the same arguments.

What belongs here: reaching a cluster, and saying in one line why it can't be used. Dask runs the tasks of a
killed worker again on another one, up to ``distributed.scheduler.allowed-failures`` times. That is safe: what
a task writes appears whole or not at all, and the same twice does no harm.
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError, WorkerError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10.0
FIRST_WORKER_SECONDS = 30.0
PACKAGES = ("deltalake", "duckdb", "iot-pipeline", "numpy", "pandas", "pyarrow", "scipy")
"""What a result depends on, besides Python and Dask."""


@contextmanager
def open_cluster(address: str) -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Connect to a cluster and yield its executor, and what tells how many tasks it runs at a time now.

    Args:
        address: Of the scheduler, like ``tcp://10.0.0.1:8786``.

    Raises:
        ConfigurationError: It can't be reached, has no workers, or runs other versions of the packages.
        WorkerError: A task's workers were killed again and again, or the scheduler has gone.
    """
    try:
        from distributed import Client, KilledWorker  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigurationError("IOT_DASK_SCHEDULER needs a package more: pip install '.[dask]'") from error
    _check_that_a_scheduler_listens(address)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(f"IOT_DASK_SCHEDULER: no Dask scheduler answers at {address}") from error
    with client:
        _check_workers(client, address)
        # Without pure=False an equal call would be answered with the result of the first.
        executor = client.get_executor(pure=False)
        try:
            yield executor, lambda: sum(client.nthreads().values())
        except KilledWorker as error:
            raise WorkerError(
                "workers that ran the same task were killed one after another, perhaps for lack of memory:"
                " give each more of it (dask worker --nthreads 1 --memory-limit …)"
            ) from error
        except CancelledError as error:
            raise WorkerError(
                f"the Dask scheduler at {address} has gone: try again when it is back"
            ) from error
        finally:
            executor.shutdown(wait=False)  # cancels what is still under way


def _check_that_a_scheduler_listens(address: str) -> None:
    """Find out at once what Dask would try for half a minute or wait for without end."""
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
