"""Load and judge a bucket with one process, a pool and Dask clusters, on a disk and on S3; print the costs.

    python benchmarks/cluster.py --days 110       # a tenth of the full size: 5 million rows, 0.4 GB

All processes share this machine's cores: the scheduler, the workers and the S3 server (moto, one process of
Python). Each way runs in a process of its own and is timed after its imports, which the workers of a cluster
still have before them; the best of two rounds counts. Needs distributed and moto[server].
"""

import argparse
import json
import os
import pickle
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pyarrow as pa

from iot_pipeline import connect, get_measurements, workers
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.ingest import month as month_of_fragments
from iot_pipeline.ingest.fragment import FragmentInfo
from iot_pipeline.ingest.ledger import LoadedFile, read_ledger, write_ledger
from iot_pipeline.ingest.month import MonthTask
from iot_pipeline.samples.bucket import write_sample_bucket
from iot_pipeline.store import DirectoryStore
from iot_pipeline.warehouse import Warehouse, open_folder, open_warehouse
from iot_pipeline.warehouse.delta import DataFile, commit
from iot_pipeline.warehouse.tables import Version, read_table

ROUNDS = 2
QUESTIONS = 40
REQUEST = re.compile(r'"(?:\x1b\[[0-9;]*m)*(GET|PUT|HEAD|POST|DELETE) ')
Cost = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How a bucket is loaded.

    Attributes:
        name: In the table.
        processes: Of the pool, or workers of the cluster.
        cluster: Whether there is one.
        s3: Whether the warehouse lies on S3.
    """

    name: str
    processes: int
    cluster: bool = False
    s3: bool = False


WAYS = (
    Way("1 process, disk", 1),
    Way("2 processes, disk", 2),
    Way("cluster of 1, disk", 1, cluster=True),
    Way("cluster of 2, disk", 2, cluster=True),
    Way("1 process, S3", 1, s3=True),
    Way("cluster of 1, S3", 1, cluster=True, s3=True),
    Way("cluster of 2, S3", 2, cluster=True, s3=True),
)


def run_once(bucket: str, warehouse: str) -> Cost:
    """Load and judge in this process; weigh all tasks and results."""
    costs: Cost = {"tasks": Counter(), "task bytes": Counter(), "result bytes": Counter()}
    run = workers.Workers.run

    def weigh(self: workers.Workers, function: Any, tasks: Any) -> Iterator[Any]:
        name = (function.func if isinstance(function, partial) else function).__name__
        tasks = list(tasks)
        costs["tasks"][name] += len(tasks)
        size = max((len(pickle.dumps((function, task))) for task in tasks), default=0)
        costs["task bytes"][name] = max(costs["task bytes"][name], size)
        for result in run(self, function, tasks):
            size = len(pickle.dumps(result))
            costs["result bytes"][name] = max(costs["result bytes"][name], size)
            yield result

    workers.Workers.run = weigh  # type: ignore[method-assign]
    load_mapping(source=bucket, warehouse=warehouse)
    started = time.perf_counter()
    report = load_timeseries(source=bucket, warehouse=warehouse)
    costs["load"] = time.perf_counter() - started
    started = time.perf_counter()
    load_timeseries(source=bucket, warehouse=warehouse)
    costs["nothing new"] = time.perf_counter() - started
    started = time.perf_counter()
    found = flag_anomalies(warehouse=warehouse)
    costs["judge"] = time.perf_counter() - started
    costs["first question"], costs["again"] = ask(warehouse)
    costs |= {"rows": report.rows_loaded, "files": report.files_new, "sensors": found.sensors}
    costs["months"] = len(report.months)
    costs["peak MB"] = peak_mb(os.getpid())
    return costs


def ask(warehouse: str) -> tuple[float, float]:
    """Return the median milliseconds of a sensor's day, asked for the first time and again."""
    with connect(warehouse) as connection:
        names = [name for (name,) in connection.execute("SELECT sensor_name FROM sensors").fetchall()]
        ((first,),) = connection.execute("SELECT epoch_us(min(timestamp)) FROM measurements").fetchall()
    start = datetime.fromtimestamp(first / 1e6, UTC)
    times: list[list[float]] = [[], []]
    for number, sensor in enumerate(names[:QUESTIONS]):
        day = start + timedelta(days=number)
        for asked in times:
            started = time.perf_counter()
            get_measurements(sensor, day, day + timedelta(days=1), warehouse=warehouse)
            asked.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def measure(way: Way, bucket: Path, directory: Path) -> Cost:
    """Run a way in processes of its own."""
    environment = {**os.environ, "IOT_WORKERS": str(way.processes), "IOT_DASK_SCHEDULER": ""}
    with s3_server(directory) as server:
        environment |= server.environment
        warehouse = f"s3://{server.bucket}" if way.s3 else str(directory / "warehouse")
        with dask_cluster(way.processes if way.cluster else 0, directory, environment) as (address, session):
            environment["IOT_DASK_SCHEDULER"] = address
            command = [sys.executable, __file__, "--once", str(bucket), warehouse]
            cost: Cost = json.loads(subprocess.check_output(command, env=environment))
            cost["worker MB"] = max(map(peak_mb, processes_of(session)), default=0.0) if address else 0.0
        cost["requests"] = Counter(REQUEST.findall(server.log.read_text(errors="replace")))
        os.environ.update(server.environment)
        files = list(open_folder(warehouse).list_objects())
        cost["table files"] = sum("timeseries/month=" in file.name for file in files)
        if not way.s3:
            cost["bytes"] = sizes(Path(warehouse))
    return cost


def sizes(warehouse: Path) -> dict[str, int]:
    folders = {
        "fragments": ("bronze", "*.parquet"),
        "table": ("timeseries", "month=*/*.parquet"),
        "log of the table": ("timeseries", "_delta_log/*"),
        "ledger": ("source_files", "*.parquet"),
        "log of the ledger": ("source_files", "_delta_log/*"),
    }
    return {
        name: sum(path.stat().st_size for path in (warehouse / folder).glob(pattern))
        for name, (folder, pattern) in folders.items()
    }


@dataclass(frozen=True)
class Server:
    """An S3 server.

    Attributes:
        bucket: An empty bucket of it.
        environment: What clients need.
        log: Where it notes each request.
    """

    bucket: str
    environment: dict[str, str]
    log: Path


@contextmanager
def s3_server(directory: Path) -> Iterator[Server]:
    port = free_port()
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_REGION": "us-east-1",
    }
    log = directory / "s3.log"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            wait_for(port)
            endpoint = environment["AWS_ENDPOINT_URL_S3"]
            keys = {"aws_access_key_id": "benchmark", "aws_secret_access_key": "benchmark"}
            client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)  # type: ignore[call-overload]
            client.create_bucket(Bucket="warehouse")
            yield Server("warehouse", environment, log)
        finally:
            process.kill()


@contextmanager
def dask_cluster(
    workers: int, directory: Path, environment: dict[str, str]
) -> Iterator[tuple[str, list[int]]]:
    """Run a scheduler and workers of one thread; yields its address and the session of each worker."""
    if not workers:
        yield "", []
        return
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = (sys.executable, "-m", "dask")
    commands = [
        (*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"),
        *[(*dask, "worker", address, "--nthreads", "1", "--no-dashboard")] * workers,
    ]
    processes = [
        subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True, cwd=directory
        )
        for command in commands
    ]
    try:
        wait_for(port)
        time.sleep(5)  # until the workers have started
        yield address, [process.pid for process in processes[1:]]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def processes_of(sessions: list[int]) -> list[int]:
    found = []
    for directory in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.getsid(int(directory.name)) in sessions:
                found.append(int(directory.name))
    return found


def peak_mb(process: int) -> float:
    """Return the most memory that a process had."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def wait_for(port: int) -> None:
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=110)
    parser.add_argument("--sensors", type=int, default=500)
    parser.add_argument("--bucket", type=Path, help="a bucket that exists, instead of generating one")
    parser.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(run_once(*options.once)))
        return
    with tempfile.TemporaryDirectory() as name:
        bucket = options.bucket or Path(name) / "bucket"
        if not options.bucket:
            print(write_sample_bucket(bucket, sensors=options.sensors, days=options.days, seed=1))
        report(bucket)


def report(bucket: Path) -> None:
    csv_bytes = sum(path.stat().st_size for path in bucket.rglob("*.csv"))
    costs: dict[str, Cost] = {}
    for _ in range(ROUNDS):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as name:
                cost = measure(way, bucket, Path(name))
            best = costs.setdefault(way.name, cost)
            for what in ("load", "nothing new", "judge", "first question", "again"):
                best[what] = min(best[what], cost[what])
    head = "| way | load, s | rows/s | nothing new, s | judge, s | sensors/s | driver MB | worker MB |"
    print(f"\n{csv_bytes / 1e6:,.0f} MB of CSV, {os.cpu_count()} cores\n\n{head}\n|---|" + "---:|" * 7)
    for label, cost in costs.items():
        cells = [
            f"{cost['load']:.1f}",
            f"{cost['rows'] / cost['load']:,.0f}",
            f"{cost['nothing new']:.2f}",
            f"{cost['judge']:.1f}",
            f"{cost['sensors'] / cost['judge']:.1f}",
            f"{cost['peak MB']:.0f}",
            f"{cost['worker MB']:.0f}" if cost["worker MB"] else "",
        ]
        print(f"| {label} | " + " | ".join(cells) + " |")
    disk, s3 = costs["2 processes, disk"], costs["cluster of 2, S3"]
    print("\n| what | how much |\n|---|---:|")
    print(f"| files / rows | {disk['files']:,} / {disk['rows']:,} |")
    print(f"| months / files of the table | {disk['months']} / {s3['table files']} |")
    for what, size in disk["bytes"].items():
        print(f"| bytes of the {what} | {size:,} |")
    for task, count in s3["tasks"].items():
        weight = f"{s3['task bytes'][task]:,} / {s3['result bytes'][task]:,}"
        print(f"| {task}: tasks; bytes of the largest task / result | {count}; {weight} |")
    requests = ", ".join(f"{method} {count:,}" for method, count in sorted(s3["requests"].items()))
    print(f"| requests, warehouse on S3 | {requests} |")
    print("\n| a sensor's day, ms | asked first | again |\n|---|---:|---:|")
    for where, cost in (("disk", costs["1 process, disk"]), ("S3", costs["1 process, S3"])):
        print(f"| {where} | {cost['first question']:.1f} | {cost['again']:.1f} |")
    report_passes(bucket)
    report_driver()


def report_passes(bucket: Path) -> None:
    """Compact the largest month in one, four and ten passes over its fragments, as a larger one needs."""
    with tempfile.TemporaryDirectory() as name:
        warehouse = open_warehouse(name)
        load_timeseries(source=str(bucket), warehouse=name)
        files = [entry.info for entry in read_files(warehouse).values()]
        rows: Counter[str] = Counter()
        for info in files:
            rows.update(info.months)
        ((month, n_rows),) = rows.most_common(1)
        task = MonthTask(month, tuple(info.fragment for info in files if month in info.months), n_rows)
        print(f"\n| passes over a month of {n_rows:,} rows | s |\n|---:|---:|")
        for passes in (1, 4, 10):
            month_of_fragments.PASS_ROWS = -(-n_rows // passes)
            started = time.perf_counter()
            month_of_fragments.compact_month(task, warehouse.bronze, warehouse.timeseries)
            print(f"| {passes} | {time.perf_counter() - started:.2f} |")


def report_driver() -> None:
    """Write and read ledgers and logs as large as those of more data."""
    print("\n| entries | ledger MB | write, s | read, s | log MB | commit, s | open, s |\n|" + "---:|" * 7)
    now = datetime.now(UTC)
    for count in (1_000, 10_000, 100_000):
        infos = [
            FragmentInfo(
                f"timeseries/data_{i}.csv", uuid4().hex, 4_000_000, uuid4().hex, "", 9, 0, 0, {"2013-01": 9}
            )
            for i in range(count)
        ]
        entries = {info.key: LoadedFile(info, now, {"2013-01": 9}) for info in infos}
        stats = json.dumps(
            {
                "numRecords": 9,
                "minValues": dict.fromkeys("abc", "0" * 36),
                "maxValues": dict.fromkeys("abc", "0" * 36),
            }
        )
        files = [
            DataFile(f"month=2013-01/part-{i:032x}.parquet", 9, {"month": "2013-01"}, stats)
            for i in range(count)
        ]
        schema = pa.schema([(name, pa.string()) for name in ("a", "b", "c", "month")])
        with tempfile.TemporaryDirectory() as name:
            table, warehouse = Believing(Path(name) / "table"), open_warehouse(name)
            seconds = [
                timed(write_ledger, warehouse, entries, Version(0, ""), onto=None),
                timed(read_files, warehouse),
                timed(commit, table, onto=None, schema=schema, add=files, partition_by="month"),
                timed(read_table, table),
            ]
            sizes = [
                folder_mb(Path(name) / "source_files", "*.parquet"),
                folder_mb(Path(name) / "table", "*/*.json"),
            ]
        cells = [
            f"{sizes[0]:.1f}",
            *(f"{s:.2f}" for s in seconds[:2]),
            f"{sizes[1]:.1f}",
            *(f"{s:.2f}" for s in seconds[2:]),
        ]
        print(f"| {count:,} | " + " | ".join(cells) + " |")


class Believing(DirectoryStore):
    """A folder that has every file it is asked for."""

    def versions(self, names: Sequence[str]) -> list[str]:
        """Return something for each name."""
        return ["made up"] * len(names)


def read_files(warehouse: Warehouse) -> dict[str, LoadedFile]:
    return read_ledger(warehouse, read_table(warehouse.source_files))


def timed(function: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def folder_mb(folder: Path, pattern: str) -> float:
    return sum(path.stat().st_size for path in folder.glob(pattern)) / 1e6


if __name__ == "__main__":
    main()
