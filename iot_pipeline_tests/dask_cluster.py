"""A Dask cluster on loopback: a scheduler and workers as real processes, started as an operator would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DASK = (sys.executable, "-m", "dask")
SECONDS = 30.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: Of the scheduler.
        scheduler: Its process.
    """

    address: str
    scheduler: subprocess.Popen[bytes]


@contextmanager
def running_cluster(
    directory: Path, *, workers: int = 2, environment: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """Run a scheduler and workers of one thread each.

    Args:
        directory: For their files.
        workers: How many.
        environment: Variables of all processes besides ours.
    """
    file = directory / "scheduler.json"
    variables = {
        **os.environ,
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
        **(environment or {}),
    }
    with ExitStack() as processes:

        def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [*DASK, *arguments], env=variables, stderr=subprocess.DEVNULL, start_new_session=True
            )
            processes.callback(_end, process)
            return process

        listen = ("--scheduler-file", file, "--no-dashboard")
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", *listen)
        for _ in range(workers):
            start("worker", *listen, "--nthreads", "1", "--local-directory", directory, "--host", "127.0.0.1")
        yield Cluster(_address(file), scheduler)


def _address(file: Path) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            address: str = json.loads(file.read_text())["address"]
            return address
        time.sleep(0.05)
    raise TimeoutError("the scheduler did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
