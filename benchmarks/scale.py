"""Query latency as the data grows: 1, 3 and 10 times the sensors, 1, 3 and 10 times the months.

    python benchmarks/scale.py
    python benchmarks/scale.py --files 100 500 5000 50000    # a table of that many files instead

Each size is generated, loaded and asked the same kind of questions in one warm process. Files beyond those of
ten sensors hold one reading each, of sensors that nobody asks for: what counts is how many there are.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from query import ours, questions

from iot_pipeline import connect, get_measurements
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.ingest.ledger import LEDGER
from iot_pipeline.ingest.month import MEASUREMENTS
from iot_pipeline.samples.bucket import write_sample_bucket
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.delta import DataFile, commit
from iot_pipeline.warehouse.state import read_state, readings_tables

SENSORS, DAYS = 500, 62
SIZES = ((1, 1), (3, 1), (10, 1), (1, 3), (1, 10))


def make_warehouse(directory: Path, *, sensors: int, days: int) -> Warehouse:
    write_sample_bucket(directory / "bucket", sensors=sensors, days=days, seed=1)
    load_mapping(source=str(directory / "bucket"), warehouse=directory / "warehouse")
    load_timeseries(source=str(directory / "bucket"), warehouse=directory / "warehouse")
    return open_warehouse(directory / "warehouse")


def median_ms(warehouse: Warehouse, span: str, count: int) -> float:
    query, times = ours(warehouse), []
    for question in questions(warehouse, span, count + 5):
        start = time.perf_counter()
        query(*question)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times[5:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--files", type=int, nargs="+", metavar="N", help="how many files the table has")
    options = parser.parse_args()
    if options.files:
        report_files(options.files)
        return
    print("| sensors | months | readings | day, ms | month, ms | everything, ms |\n|---|---|---|---|---|---|")
    for times_sensors, times_days in SIZES:
        with tempfile.TemporaryDirectory() as name:
            warehouse = make_warehouse(Path(name), sensors=SENSORS * times_sensors, days=DAYS * times_days)
            months = len(read_state(warehouse).months)
            cells = [median_ms(warehouse, span, options.questions) for span in ("day", "month", "everything")]
            row = [f"{SENSORS * times_sensors:,}", f"{months}", f"{n_readings(warehouse):,}"]
            print("| " + " | ".join([*row, *(f"{cell:.1f}" for cell in cells)]) + " |", flush=True)


def add_files(warehouse: Warehouse, count: int) -> None:
    """Commit files of a reading each to the table, and pin that version."""
    tables = readings_tables(warehouse, writing=True)
    ledger = tables.last
    assert ledger
    added = []
    for number in range(count):
        moment = datetime(2013 + number % 3, 1 + number // 3 % 12, 15, tzinfo=UTC)
        name, month = f"month={moment:%Y-%m}/one-{number}.parquet", f"{moment:%Y-%m}"
        path = Path(warehouse.timeseries.url) / name
        path.parent.mkdir(exist_ok=True)
        reading = {"sensor_uuid": f"{UUID(int=number)}", "timestamp": moment, "sensor_value": 1.0}
        pq.write_table(pa.Table.from_pylist([reading], schema=MEASUREMENTS), path)
        added.append(DataFile.describe(name, path, {"month": month}))
    version = commit(
        warehouse.timeseries,
        onto=tables.head_number("timeseries"),
        schema=MEASUREMENTS.append(pa.field("month", pa.string())),
        partition_by="month",
        add=added,
        replace=(),
    )
    pins = [(warehouse.timeseries, version)]
    commit(warehouse.source_files, onto=ledger.version.number, schema=LEDGER, add=[], replace=(), pins=pins)


def report_files(counts: list[int]) -> None:
    print("| files | first connect(), ms | connect(), ms | SQL, day | count(*) | get_measurements, day |")
    print("|---|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            warehouse = make_warehouse(Path(name), sensors=10, days=DAYS)
            add_files(warehouse, count - len(read_state(warehouse).timeseries.files))
            print(f"| {count:,} | " + " | ".join(f"{cell:.1f}" for cell in times_of(warehouse)) + " |")


def times_of(warehouse: Warehouse) -> Iterator[float]:
    """Yield the milliseconds of the first connect(), a later one, SQL and get_measurements."""
    sensor, *_ = read_state(warehouse).sensors
    connects = milliseconds(lambda: connect(warehouse.url).close())
    yield from (connects[0], float(np.median(connects[1:])))
    day = "2013-01-05", "2013-01-06"
    of_a_day = f"sensor_name = '{sensor}' AND timestamp BETWEEN '{day[0]}' AND '{day[1]}'"
    with connect(warehouse.url) as connection:
        for condition in (of_a_day, "true"):
            statement = f"SELECT count(*) FROM measurements WHERE {condition}"
            ask = partial(connection.execute, statement)
            yield float(np.median(milliseconds(ask)[1:]))
    yield float(np.median(milliseconds(lambda: get_measurements(sensor, *day, warehouse=warehouse.url))))


def milliseconds(act: Callable[[], Any]) -> list[float]:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        act()
        times.append((time.perf_counter() - start) * 1000)
    return times


def n_readings(warehouse: Warehouse) -> int:
    with connect(warehouse.url) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM measurements").fetchall()
    return int(count)


if __name__ == "__main__":
    main()
