"""Work on a Dask cluster: the same results, and clear words about a cluster that can't be used."""

import math
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from distributed import Client

from iot_pipeline import workers
from iot_pipeline.errors import ConfigurationError, WorkerError
from iot_pipeline.ingest import load
from iot_pipeline.progress import Progress
from iot_pipeline.workers import open_workers
from iot_pipeline_tests.conftest import Bucket, row
from iot_pipeline_tests.dask_cluster import Cluster, running_cluster

pytestmark = pytest.mark.system


@pytest.fixture
def _on_the_cluster(dask: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_DASK_SCHEDULER", dask.address)


on_the_cluster = pytest.mark.usefixtures("_on_the_cluster")


def processes_of(dask: Cluster) -> list[int]:
    """Return the ids of the workers' processes, once there are two."""
    with Client(dask.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
        return list(client.run(os.getpid).values())


def process_of(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


@on_the_cluster
def test_tasks_run_on_all_workers_with_one_thread_for_linear_algebra(dask: Cluster) -> None:
    processes = set(processes_of(dask))
    with open_workers(parallel=False) as workers:
        assert workers.count() == 2
        assert set(workers.run(process_of, range(8))) == processes
        assert set(workers.run(os.getenv, ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])) == {"1"}


@on_the_cluster
def test_equal_tasks_are_run_each_for_itself(tmp_path: Path) -> None:
    with open_workers(parallel=False) as workers:
        made = set(workers.run(make_file, [tmp_path, tmp_path, tmp_path]))
    assert len(made) == 3
    assert made == {path.name for path in tmp_path.iterdir()}


def make_file(directory: Path) -> str:
    name = uuid4().hex
    (directory / name).touch()
    return name


@on_the_cluster
def test_an_error_of_a_task_is_raised_as_it_is() -> None:
    with open_workers(parallel=False) as workers, pytest.raises(ValueError, match="negative"):
        list(workers.run(math.factorial, [3, -1, 4]))


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@on_the_cluster
def test_the_task_of_a_killed_worker_is_run_again(tmp_path: Path) -> None:
    with open_workers(parallel=False) as workers:
        assert list(workers.run(die_once, [tmp_path / "a"])) == ["done"]


@on_the_cluster
def test_a_task_that_kills_all_its_workers_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(WorkerError, match="lack of memory"), open_workers(parallel=False) as workers:
        list(workers.run(os._exit, [1]))


@on_the_cluster
def test_a_worker_killed_in_the_middle_of_a_load_costs_nothing(
    bucket: Bucket, dask: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "BATCH_FILES", 1)
    for number in range(8):
        times = (f"2013-{1 + i % 3:02}-{1 + i % 28:02} {i % 24:02}:{number}{i % 10}" for i in range(3_000))
        bucket.write(f"data_{number}.csv", *map(row, times), "refused")
    killed: list[int] = []

    def kill_a_worker(progress: Progress) -> None:
        if progress.done == 2 and not killed:
            killed.extend(processes_of(dask)[:1])
            os.kill(killed[0], signal.SIGKILL)

    report = bucket.load(on_progress=kill_a_worker)
    assert killed
    monkeypatch.delenv("IOT_DASK_SCHEDULER")
    alone = replace(bucket, warehouse=bucket.warehouse.with_name("alone"))
    assert report == alone.load()
    assert bucket.content() == alone.content()


def test_a_scheduler_that_goes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster(tmp_path, workers=1) as running:
        monkeypatch.setenv("IOT_DASK_SCHEDULER", running.address)
        with pytest.raises(WorkerError, match=running.address):
            kill_the_scheduler_meanwhile(running)


def kill_the_scheduler_meanwhile(running: Cluster) -> None:
    with open_workers(parallel=False) as workers:
        results = workers.run(time.sleep, [0.0, 60.0])
        next(results)
        running.scheduler.kill()
        list(results)


@pytest.mark.parametrize("address", ["10.0.0.1", "tcp://", "tcp://host", "tcp://host:port", "nonsense:8786"])
def test_an_address_that_is_none_is_an_error_that_names_the_setting(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_DASK_SCHEDULER", address)
    with pytest.raises(ConfigurationError, match=r"IOT_DASK_SCHEDULER .*tcp://host:8786"):
        use_the_cluster()


def use_the_cluster() -> None:
    with open_workers(parallel=False):
        pass


def test_a_scheduler_that_does_not_listen_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("IOT_DASK_SCHEDULER", f"tcp://127.0.0.1:{port}")
    with pytest.raises(ConfigurationError, match=r"IOT_DASK_SCHEDULER.*Connection refused") as caught:
        use_the_cluster()
    assert "\n" not in str(caught.value)


def test_what_listens_but_is_no_scheduler_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("IOT_DASK_SCHEDULER", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ConfigurationError, match="IOT_DASK_SCHEDULER: no Dask scheduler"):
            use_the_cluster()


def test_a_cluster_without_workers_is_an_error_that_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST_WORKER_SECONDS", 0.2)
    with running_cluster(tmp_path, workers=0) as running:
        monkeypatch.setenv("IOT_DASK_SCHEDULER", running.address)
        with pytest.raises(ConfigurationError, match=f"dask worker {running.address}"):
            use_the_cluster()


@pytest.mark.parametrize(
    ("package", "theirs"), [("pyarrow", "1.0"), ("iot-pipeline", None), ("python", "3.9")]
)
def test_a_worker_with_another_version_is_an_error_that_names_it(package: str, theirs: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        workers._check_workers(OtherVersions({package: theirs}), "tcp://scheduler:1")
    assert f"tcp://worker:1 has {package} {theirs or 'not installed'}, this process" in str(caught.value)


class OtherVersions:
    """A client of a cluster whose worker has some other versions."""

    def __init__(self, others: dict[str, str | None]) -> None:
        self._others = others

    def wait_for_workers(self, *_: Any, **__: Any) -> None: ...

    def get_versions(self, packages: list[str]) -> Any:
        ours = {"python": "3.11.7.final.0", **dict.fromkeys(("distributed", *packages), "2.0")}
        return {
            "client": {"packages": ours},
            "workers": {"tcp://worker:1": {"packages": ours | self._others}},
        }


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_DASK_SCHEDULER", "tcp://127.0.0.1:8786")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[dask\]'"):
        use_the_cluster()
