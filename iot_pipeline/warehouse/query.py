"""Reading the warehouse: one sensor's readings in milliseconds, or anything in SQL."""

import os
import threading
from collections.abc import Callable
from datetime import date, datetime, time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from iot_pipeline.berlin import TIME_ZONE, month_of, to_instant
from iot_pipeline.errors import (
    ConfigurationError,
    DamagedTableError,
    UnknownSensorError,
)
from iot_pipeline.store import Store
from iot_pipeline.warehouse._layout import Warehouse, open_warehouse
from iot_pipeline.warehouse.state import State, read_state
from iot_pipeline.warehouse.views import configure, connect_to, read_parquet_sql, readable_errors

if TYPE_CHECKING:
    import polars as pl

Moment = str | date | datetime
Answer = TypeVar("Answer")

READINGS = pa.schema([("timestamp", pa.timestamp("us", TIME_ZONE)), ("sensor_value", pa.float64())])


@overload
def get_measurements(
    sensor_name: str,
    start: Moment,
    end: Moment,
    *,
    as_: Literal["pandas"] = "pandas",
    warehouse: str | Path | None = None,
) -> pd.DataFrame: ...


@overload
def get_measurements(
    sensor_name: str,
    start: Moment,
    end: Moment,
    *,
    as_: Literal["polars"],
    warehouse: str | Path | None = None,
) -> "pl.DataFrame": ...


@overload
def get_measurements(
    sensor_name: str,
    start: Moment,
    end: Moment,
    *,
    as_: Literal["arrow"],
    warehouse: str | Path | None = None,
) -> pa.Table: ...


def get_measurements(
    sensor_name: str,
    start: Moment,
    end: Moment,
    *,
    as_: Literal["pandas", "polars", "arrow"] = "pandas",
    warehouse: str | Path | None = None,
) -> "pd.DataFrame | pl.DataFrame | pa.Table":
    """Return the readings of a sensor in a range of time, both ends included.

    Args:
        sensor_name: Like ``sensor_00000``.
        start: ISO 8601 text, a date (its midnight), a datetime or a pandas Timestamp; without a time zone
            it means Europe/Berlin.
        end: Likewise.
        as_: What to return: a pandas or polars frame or an Arrow table.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Returns:
        Columns ``timestamp`` (microseconds, Europe/Berlin) and ``sensor_value`` (float64), ascending. No
        reading in the range: no row.

    Raises:
        UnknownSensorError: The mapping has no such sensor.
        ValueError: A time can't be read, or the start is after the end.
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be read.
    """
    if as_ not in {"pandas", "polars", "arrow"}:
        raise ValueError(f"as_ must be 'pandas', 'polars' or 'arrow', not {as_!r}")
    first, last = read_moment(start), read_moment(end)
    if first > last:
        raise ValueError(f"start {start} is after end {end}")
    instants, values = _ask(open_warehouse(warehouse), lambda state: _fetch(state, sensor_name, first, last))
    if as_ == "pandas":
        timestamps = pd.DatetimeIndex(instants.view("datetime64[us]"), tz="UTC").tz_convert(TIME_ZONE)
        return pd.DataFrame({"timestamp": timestamps, "sensor_value": values}, copy=False)
    rows = pa.table([pa.array(instants).view(READINGS.field(0).type), pa.array(values)], schema=READINGS)
    if as_ == "arrow":
        return rows
    try:
        import polars as pl  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "polars is not installed, as as_='polars' needs it: run: pip install 'iot-pipeline[polars]'"
        ) from error
    return pl.DataFrame(rows)


def _ask(warehouse: Warehouse, question: Callable[[State], Answer]) -> Answer:
    """Ask about the latest state; about a later one, if a load has deleted files that it names meanwhile."""
    state = read_state(warehouse)
    while True:
        try:
            return question(state)
        except DamagedTableError:
            latest = read_state(warehouse, fresh=True)
            if latest == state:
                raise
            state = latest


def _fetch(
    state: State, sensor_name: str, first: int, last: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read a sensor's instants and values between two instants, in the files' order: ascending."""
    sensor_uuid = state.uuid_of(sensor_name)
    if sensor_uuid is None:
        raise UnknownSensorError.among(sensor_name, state.sensors, state.warehouse.url)
    paths = state.paths([sensor_uuid], month_of(first), month_of(last))
    if not paths:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    rows = _read(
        state.warehouse,
        f"SELECT epoch_us(timestamp) AS instant, sensor_value FROM {read_parquet_sql(paths)}"
        " WHERE sensor_uuid = $uuid"
        " AND timestamp BETWEEN make_timestamptz($first) AND make_timestamptz($last)",
        {"uuid": sensor_uuid, "first": first, "last": last},
    )
    return rows["instant"], rows["sensor_value"]


def read_readings(
    warehouse: Warehouse, paths: list[str], sensor_uuids: list[str]
) -> dict[str, tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64]]]:
    """Read all readings of some sensors.

    Args:
        warehouse: The warehouse.
        paths: Parquet files of a state of it.
        sensor_uuids: Which sensors.

    Returns:
        By uuid, for those that have readings: datetime64[us][n] in UTC, ascending, and float64[n].
    """
    if not paths:
        return {}
    rows = _read(
        warehouse,
        "SELECT list_position($uuids, sensor_uuid)::SMALLINT AS sensor,"
        f" epoch_us(timestamp) AS instant, sensor_value FROM {read_parquet_sql(paths)}"
        " WHERE sensor_uuid IN (SELECT unnest($uuids))",
        {"uuids": sensor_uuids},
    )
    sensor = rows["sensor"]
    order = np.argsort(sensor, kind="stable")
    ends = np.cumsum(np.bincount(sensor, minlength=len(sensor_uuids) + 1)[1:])
    instants = np.split(rows["instant"][order].view("datetime64[us]"), ends[:-1])
    values = np.split(rows["sensor_value"][order], ends[:-1])
    parts = zip(sensor_uuids, instants, values, strict=True)
    return {uuid: _in_order(times, readings) for uuid, times, readings in parts if len(times)}


def _in_order(
    times: npt.NDArray[np.datetime64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64]]:
    """Sort readings by time, and by value where times are equal.

    They come in a few ascending runs, which the stable sort merges ten times faster than DuckDB sorts.
    """
    order = np.argsort(times, kind="stable")
    if np.any(times[order[1:]] == times[order[:-1]]):
        order = np.lexsort((values, times))
    return times[order], values[order]


def connect(
    warehouse: str | Path | None = None, *, connection: duckdb.DuckDBPyConnection | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection on one consistent version of all tables.

    The views are ``measurements``, ``sensors``, ``source_files``, ``rejected_rows``, ``events``,
    ``incidents``, ``anomalies``, ``sensor_models`` and ``annotations``. The connection is in memory and the
    caller's own; later loads don't change what it sees. Where a table's files are damaged, its view raises an
    error that says what to run, and the others work: an empty view would say that there are no anomalies.

    Args:
        warehouse: The warehouse's directory or S3 URL; by default the setting's.
        connection: A connection to an empty database to make the views in, instead of opening one.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The readings, their ledger or the mapping can't be read.
    """
    return connect_to(open_warehouse(warehouse), connection)[0]


def read_moment(moment: Moment) -> int:
    """Return the microseconds since the epoch that a user means."""
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment.strip())
        elif isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        return int(to_instant(moment))  # pandas' NaT gives NaN, which int refuses
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"can't read the time {moment!r}: write it like 2013-01-31 or 2013-01-31T12:00+01:00"
        ) from error


@cache
def _database_of(_process: int, root: Store) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    configure(connection, root)
    connection.execute("SET parquet_metadata_cache = true")  # a file of a table never changes
    return connection


_of_thread = threading.local()


def _cursor(root: Store) -> duckdb.DuckDBPyConnection:
    """Return the thread's cursor on the process' database; one of before a fork has lost its threads."""
    owner = os.getpid(), root
    if getattr(_of_thread, "owner", None) != owner:
        _of_thread.owner, _of_thread.cursor = owner, _database_of(*owner).cursor()
    cursor: duckdb.DuckDBPyConnection = _of_thread.cursor
    return cursor


def _read(warehouse: Warehouse, statement: str, parameters: dict[str, Any]) -> dict[str, Any]:
    with readable_errors(warehouse.url):
        return _cursor(warehouse.root).execute(statement, parameters).fetchnumpy()
