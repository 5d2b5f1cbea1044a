"""Query one sensor's readings in several ways, side by side in one run; print medians and ratios.

    python benchmarks/query.py --warehouse DIR    # loaded with mapping and timeseries
    python benchmarks/query.py --days 110         # generates and loads a bucket first

Every way answers the same random questions (a sensor and a day, a month or everything) with a pandas frame in
a warm process; the ways take turns question by question. The databases are built from the warehouse first.
Needs polars and chdb, and for PostgreSQL psycopg and the server's programs (Debian: postgresql).
The second table is that of ``sql.py``.
"""

import argparse
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from sql import report_sql

from iot_pipeline import get_measurements
from iot_pipeline.berlin import BERLIN, month_of, to_instant
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.samples.bucket import write_sample_bucket
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.state import State, read_state
from iot_pipeline.warehouse.views import read_parquet_sql

Way = Callable[[str, datetime, datetime], pd.DataFrame]
COLUMNS = ["timestamp", "sensor_value"]
OURS = "get_measurements"
FLOOR = "DuckDB over the needed files"


def needed_files(state: State, sensor: str, start: datetime, end: datetime) -> list[str]:
    return state.paths([state.sensors[sensor]], month_of(to_instant(start)), month_of(to_instant(end)))


def ours(warehouse: Warehouse) -> Way:
    return lambda sensor, start, end: get_measurements(sensor, start, end, warehouse=warehouse.url)


def duckdb_over_files(warehouse: Warehouse) -> Way:
    connection = _duckdb()
    state = read_state(warehouse)

    def query(sensor: str, start: datetime, end: datetime) -> pd.DataFrame:
        rows = connection.sql(
            f"SELECT timestamp, sensor_value FROM read_parquet({needed_files(state, sensor, start, end)})"
            " WHERE sensor_uuid = $uuid AND timestamp BETWEEN $start AND $end",
            params={"uuid": state.sensors[sensor], "start": start, "end": end},
        )
        frame: pd.DataFrame = rows.to_arrow_table().to_pandas()
        return frame

    return query


def duckdb_database(warehouse: Warehouse, directory: Path) -> Way:
    connection = duckdb.connect(str(directory / "sorted.duckdb"))
    connection.execute("SET GLOBAL TimeZone = 'Europe/Berlin'")
    rows = _all_rows(warehouse)
    connection.execute(f"CREATE TABLE readings AS FROM {rows} ORDER BY sensor_uuid, timestamp")
    sensors = read_state(warehouse).sensors

    def query(sensor: str, start: datetime, end: datetime) -> pd.DataFrame:
        rows = connection.sql(
            "SELECT timestamp, sensor_value FROM readings"
            " WHERE sensor_uuid = $uuid AND timestamp BETWEEN $start AND $end",
            params={"uuid": sensors[sensor], "start": start, "end": end},
        )
        frame: pd.DataFrame = rows.to_arrow_table().to_pandas()
        return frame

    return query


def polars_over_files(warehouse: Warehouse) -> Way:
    pl: Any = import_module("polars")
    state = read_state(warehouse)

    def query(sensor: str, start: datetime, end: datetime) -> pd.DataFrame:
        frame: pd.DataFrame = (
            pl.scan_parquet(needed_files(state, sensor, start, end), hive_partitioning=False)
            .filter(
                pl.col("sensor_uuid") == state.sensors[sensor],
                pl.col("timestamp").is_between(start.astimezone(UTC), end.astimezone(UTC)),
            )
            .select(COLUMNS)
            .collect()
            .to_pandas()
        )
        return frame

    return query


def sqlite_database(warehouse: Warehouse, directory: Path) -> Way:
    connection = sqlite3.connect(directory / "readings.sqlite")
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(
        "CREATE TABLE readings (sensor INTEGER, instant INTEGER, value REAL, n INTEGER,"
        " PRIMARY KEY (sensor, instant, n)) WITHOUT ROWID"
    )
    numbers = _sensor_numbers(warehouse)
    for number, instants, values in _sensor_by_sensor(warehouse):
        connection.executemany(
            "INSERT INTO readings VALUES (?, ?, ?, ?)",
            zip([number] * len(values), instants, values, range(len(values)), strict=True),
        )
    connection.commit()

    def query(sensor: str, start: datetime, end: datetime) -> pd.DataFrame:
        rows = connection.execute(
            "SELECT instant, value FROM readings WHERE sensor = ? AND instant BETWEEN ? AND ?",
            (numbers[sensor], to_instant(start), to_instant(end)),
        ).fetchall()
        return _frame(rows)

    return query


def clickhouse(warehouse: Warehouse, directory: Path) -> Way:
    session: Any = import_module("chdb.session").Session(str(directory / "chdb"))
    session.query("CREATE DATABASE b ENGINE = Atomic")
    session.query(
        "CREATE TABLE b.readings (sensor_uuid LowCardinality(String),"
        " timestamp DateTime64(6, 'Europe/Berlin'), sensor_value Float64)"
        " ENGINE = MergeTree ORDER BY (sensor_uuid, timestamp)"
    )
    for file in read_state(warehouse).timeseries.files:
        rows = f"SELECT sensor_uuid, timestamp, sensor_value FROM file('{file.url}')"
        session.query(f"INSERT INTO b.readings {rows}")
    session.query("OPTIMIZE TABLE b.readings FINAL")
    sensors = read_state(warehouse).sensors

    def query(sensor: str, start: datetime, end: datetime) -> pd.DataFrame:
        frame: pd.DataFrame = session.query(
            "SELECT timestamp, sensor_value FROM b.readings"
            f" WHERE sensor_uuid = '{sensors[sensor]}' AND timestamp BETWEEN"
            f" fromUnixTimestamp64Micro({to_instant(start)}) AND fromUnixTimestamp64Micro({to_instant(end)})"
            " ORDER BY timestamp",
            "DataFrame",
        )
        return frame

    return query


@contextmanager
def postgresql(warehouse: Warehouse, directory: Path) -> Iterator[Way]:
    psycopg: Any = import_module("psycopg")

    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data, socket = directory / "postgres", directory
    directory.chmod(0o777)
    as_user = ["runuser", "-u", "postgres", "--"]
    subprocess.run(
        [*as_user, programs / "initdb", "-D", data, "-A", "trust"], check=True, capture_output=True
    )
    server = subprocess.Popen(
        [
            *as_user,
            programs / "postgres",
            "-D",
            data,
            "-k",
            socket,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not list(socket.glob(".s.PGSQL.*")):
            time.sleep(0.1)
        time.sleep(1)
        with psycopg.connect(f"host={socket} user=postgres", autocommit=True) as connection:
            connection.execute("CREATE TABLE readings (sensor int, instant bigint, value float8, n int)")
            numbers = _sensor_numbers(warehouse)
            for number, instants, values in _sensor_by_sensor(warehouse):
                with connection.cursor().copy("COPY readings FROM STDIN") as copy:
                    rows = zip(instants, values, range(len(values)), strict=True)
                    copy.write("".join(f"{number}\t{i}\t{v!r}\t{n}\n" for i, v, n in rows))
            connection.execute("ALTER TABLE readings ADD PRIMARY KEY (sensor, instant, n)")
            connection.execute("VACUUM ANALYZE readings")

            def query(sensor: str, start: datetime, end: datetime) -> pd.DataFrame:
                cursor = connection.cursor(binary=True)
                cursor.execute(
                    "SELECT instant, value FROM readings WHERE sensor = %s AND instant BETWEEN %s AND %s"
                    " ORDER BY instant",
                    (numbers[sensor], to_instant(start), to_instant(end)),
                )
                return _frame(cursor.fetchall())

            yield query
    finally:
        server.terminate()
        server.wait()


def _duckdb() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute("SET GLOBAL TimeZone = 'Europe/Berlin'")
    return connection


def _all_rows(warehouse: Warehouse) -> str:
    return read_parquet_sql([file.url for file in read_state(warehouse).timeseries.files])


def _sensor_numbers(warehouse: Warehouse) -> dict[str, int]:
    return {sensor: number for number, sensor in enumerate(read_state(warehouse).sensors)}


def _sensor_by_sensor(warehouse: Warehouse) -> Iterator[tuple[int, list[int], list[float]]]:
    for sensor, number in _sensor_numbers(warehouse).items():
        rows = get_measurements(sensor, "1970-01-01", "2199-01-01", as_="arrow", warehouse=warehouse.url)
        yield number, rows["timestamp"].cast("int64").to_pylist(), rows["sensor_value"].to_pylist()


def _frame(rows: list[tuple[int, float]]) -> pd.DataFrame:
    table = np.array(rows, dtype=np.dtype([("instant", np.int64), ("value", np.float64)]))
    timestamps = pd.DatetimeIndex(table["instant"].view("datetime64[us]"), tz="UTC").tz_convert(
        "Europe/Berlin"
    )
    return pd.DataFrame({"timestamp": timestamps, "sensor_value": table["value"]})


def questions(warehouse: Warehouse, span: str, count: int) -> list[tuple[str, datetime, datetime]]:
    """Draw sensors and ranges of time from a seed."""
    draw = random.Random(span)  # noqa: S311 - repeatable
    state = read_state(warehouse)
    months = [datetime.strptime(month, "%Y-%m").replace(tzinfo=BERLIN) for month in state.months][1:-1]
    drawn = []
    for _ in range(count):
        sensor = draw.choice(list(state.sensors))
        start = draw.choice(months)
        if span == "day":
            start += timedelta(days=draw.randrange(27))
            drawn.append((sensor, start, start + timedelta(days=1)))
        elif span == "month":
            drawn.append((sensor, start, start + timedelta(days=27)))
        else:
            drawn.append((sensor, months[0] - timedelta(days=40), months[-1] + timedelta(days=40)))
    return drawn


def report(warehouse: Warehouse, ways: dict[str, Way], count: int) -> None:
    spans = {"day": count, "month": count, "everything": max(count // 4, 1)}
    print("| way |" + "".join(f" {span}, ms (p95) | of the floor |" for span in spans))
    print("|---|" + "---|---|" * len(spans))
    cells: dict[str, list[str]] = {way: [] for way in ways}
    for span, n in spans.items():
        times: dict[str, list[float]] = {way: [] for way in ways}
        for question in questions(warehouse, span, n + 3):
            lengths = set()
            for way, query in ways.items():
                start = time.perf_counter()
                rows = query(*question)
                times[way].append((time.perf_counter() - start) * 1000)
                lengths.add(len(rows))
            assert len(lengths) == 1, f"the ways disagree on {question}: {lengths}"
        medians = {way: float(np.median(found[3:])) for way, found in times.items()}
        for way, found in times.items():
            p95 = float(np.quantile(found[3:], 0.95))
            cells[way] += [f"{medians[way]:.2f} ({p95:.2f})", f"{medians[way] / medians[FLOOR]:.2f}"]
    for way, row in cells.items():
        print(f"| {way} | " + " | ".join(row) + " |")


def report_first_call(warehouse: Warehouse) -> None:
    """Time a new process: the import of the package alone, and with a first call."""
    arguments = f"'sensor_00001', '2013-01-05', '2013-01-06', warehouse={str(warehouse.url)!r}"
    for name, code in (
        ("import iot_pipeline", "pass"),
        ("import and first call", f"iot_pipeline.get_measurements({arguments})"),
    ):
        script = f"import time; t = time.time(); import iot_pipeline; {code}; print(time.time() - t)"
        seconds = [float(subprocess.check_output([sys.executable, "-c", script])) for _ in range(7)]
        print(f"{name}: {np.median(seconds) * 1000:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--warehouse", type=Path)
    parser.add_argument("--days", type=int, default=110)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--without", nargs="*", default=[], help="names of ways to leave out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        if not options.warehouse:
            write_sample_bucket(directory / "bucket", sensors=500, days=options.days, seed=1)
            load_mapping(source=str(directory / "bucket"), warehouse=directory / "warehouse")
            load_timeseries(source=str(directory / "bucket"), warehouse=directory / "warehouse")
        warehouse = open_warehouse(options.warehouse or directory / "warehouse")
        builders: dict[str, Callable[[], Way]] = {
            FLOOR: lambda: duckdb_over_files(warehouse),
            OURS: lambda: ours(warehouse),
            "Polars over the needed files": lambda: polars_over_files(warehouse),
            "DuckDB database, sorted": lambda: duckdb_database(warehouse, directory),
            "ClickHouse (chdb)": lambda: clickhouse(warehouse, directory),
            "SQLite": lambda: sqlite_database(warehouse, directory),
        }
        if shutil.which("runuser") and Path("/usr/lib/postgresql").exists():
            builders["PostgreSQL"] = lambda: stack.enter_context(postgresql(warehouse, directory))
        ways = {way: build() for way, build in builders.items() if way not in options.without}
        report(warehouse, ways, options.questions)
        report_first_call(warehouse)
        report_sql(warehouse, max(options.questions // 10, 1))


if __name__ == "__main__":
    main()
