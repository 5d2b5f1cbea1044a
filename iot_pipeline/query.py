"""Reading the warehouse: one sensor's readings in milliseconds, or anything in SQL."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from iot_pipeline.clock import TIME_ZONE, month_of, to_instant
from iot_pipeline.delta import list_files, open_pair
from iot_pipeline.errors import ConfigurationError, UnknownSensorError, WarehouseError, WarehouseNotReadyError
from iot_pipeline.snapshot import HOW_TO_LOAD, Snapshot, forget_snapshot, read_sensors, take_snapshot
from iot_pipeline.storage import Folder
from iot_pipeline.warehouse import Warehouse, open_warehouse, rejects_file

if TYPE_CHECKING:
    import polars as pl

Moment = str | date | datetime

READINGS = pa.schema([("timestamp", pa.timestamp("us", TIME_ZONE)), ("sensor_value", pa.float64())])

_VIEWS = {
    "readings": "sensor_uuid VARCHAR, timestamp TIMESTAMPTZ, sensor_value DOUBLE",
    "rejected_rows": "source_key VARCHAR, line_number BIGINT, reason VARCHAR, raw VARCHAR",
    "anomalies": "sensor_name VARCHAR, timestamp TIMESTAMPTZ, sensor_value DOUBLE, expected_value DOUBLE,"
    " score DOUBLE, kind VARCHAR, event_id BIGINT",
    "sensor_models": "sensor_name VARCHAR, model VARCHAR, breakpoints TIMESTAMPTZ[], noise_sd DOUBLE,"
    " n_points BIGINT, n_anomalies BIGINT, n_events BIGINT, reasoning VARCHAR",
}
"""The views over files that need not be there, and their columns while none is."""


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
    house = open_warehouse(warehouse)
    try:
        instants, values = _fetch(house, take_snapshot(house), sensor_name, first, last)
    except WarehouseError:  # a load has deleted files of the version that was known here
        forget_snapshot(house)
        instants, values = _fetch(house, take_snapshot(house), sensor_name, first, last)
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


def _fetch(
    house: Warehouse, snapshot: Snapshot, sensor_name: str, first: int, last: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read a sensor's instants and values between two instants, in the files' order: ascending."""
    sensor_uuid = snapshot.sensors.get(sensor_name)
    if sensor_uuid is None:
        raise UnknownSensorError.among(sensor_name, snapshot.sensors, house.url)
    paths = snapshot.paths([sensor_uuid], month_of(first), month_of(last))
    if not paths:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    rows = _read(
        house,
        f"SELECT epoch_us(timestamp) AS instant, sensor_value FROM {_read_parquet(paths)}"
        " WHERE sensor_uuid = $uuid"
        " AND timestamp BETWEEN make_timestamptz($first) AND make_timestamptz($last)",
        {"uuid": sensor_uuid, "first": first, "last": last},
    )
    return rows["instant"], rows["sensor_value"]


def read_readings(
    house: Warehouse, paths: list[str], sensor_uuids: list[str]
) -> dict[str, tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64]]]:
    """Read all readings of some sensors.

    Args:
        house: The warehouse.
        paths: Parquet files of a snapshot of it.
        sensor_uuids: Which sensors.

    Returns:
        By uuid, for those that have readings: datetime64[us][n] in UTC, ascending, and float64[n].
    """
    if not paths:
        return {}
    rows = _read(
        house,
        "SELECT list_position($uuids, sensor_uuid)::SMALLINT AS sensor,"
        f" epoch_us(timestamp) AS instant, sensor_value FROM {_read_parquet(paths)}"
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

    The views are ``measurements``, ``sensors``, ``source_files``, ``rejected_rows``, ``anomalies`` and
    ``sensor_models``. The connection is in memory and the caller's own; later loads don't change what it
    sees.

    Args:
        warehouse: The warehouse's directory or S3 URL; by default the setting's.
        connection: A connection to an empty database to make the views in, instead of opening one.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be read.
    """
    house = open_warehouse(warehouse)
    ledger, timeseries = open_pair(house.source_files, house.timeseries, "timeseries")
    if ledger is None:
        raise WarehouseNotReadyError(f"nothing has been loaded into {house.url} yet: {HOW_TO_LOAD}")
    models, flagged = open_pair(house.sensor_models, house.anomalies, "anomalies")
    connection = connection or duckdb.connect(":memory:")
    _configure(connection, house.root)
    files = {
        "readings": _paths(timeseries, house.timeseries),
        "sensor_models": _paths(models, house.sensor_models),
        "anomalies": _paths(flagged, house.anomalies),
    }
    with _readable_errors(house):
        _create_view(connection, "source_files", _paths(ledger, house.source_files))
        rejecting = connection.execute("SELECT fragment FROM source_files WHERE rows_rejected > 0").fetchall()
        files["rejected_rows"] = [f"{house.bronze.url}/{rejects_file(fragment)}" for (fragment,) in rejecting]
        for name in _VIEWS:
            _create_view(connection, name, files[name])
    connection.execute("CREATE TABLE sensors (sensor_name VARCHAR, sensor_uuid VARCHAR)")
    sensors = read_sensors(house)
    if sensors:
        connection.executemany("INSERT INTO sensors VALUES (?, ?)", list(sensors.items()))
    connection.execute(
        "CREATE VIEW measurements AS SELECT sensor_name, sensor_uuid, timestamp, sensor_value"
        " FROM readings LEFT JOIN sensors USING (sensor_uuid)"
    )
    return connection


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
def _database_of(_process: int, root: Folder) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    _configure(connection, root)
    connection.execute("SET parquet_metadata_cache = true")  # a file of a table never changes
    return connection


_of_thread = threading.local()


def _cursor(root: Folder) -> duckdb.DuckDBPyConnection:
    """Return the thread's cursor on the process' database; one of before a fork has lost its threads."""
    owner = os.getpid(), root
    if getattr(_of_thread, "owner", None) != owner:
        _of_thread.owner, _of_thread.cursor = owner, _database_of(*owner).cursor()
    cursor: duckdb.DuckDBPyConnection = _of_thread.cursor
    return cursor


def _read(house: Warehouse, statement: str, parameters: dict[str, Any]) -> dict[str, Any]:
    with _readable_errors(house):
        return _cursor(house.root).execute(statement, parameters).fetchnumpy()


@contextmanager
def _readable_errors(house: Warehouse) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]  # the statement follows
        raise WarehouseError(f"can't read {house.url}: {reason}") from error


def _configure(connection: duckdb.DuckDBPyConnection, root: Folder) -> None:
    connection.execute(f"SET GLOBAL TimeZone = '{TIME_ZONE}'")  # a cursor inherits only global settings
    connection.execute("SET python_enable_replacements = false")
    root.connect(connection)


def _read_parquet(paths: list[str]) -> str:
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}], hive_partitioning = false)"


def _create_view(connection: duckdb.DuckDBPyConnection, name: str, paths: list[str]) -> None:
    if paths:
        # The detector's fingerprints are its own business.
        columns = "COLUMNS(lambda name: name <> 'fingerprint')"
        connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {_read_parquet(paths)}")
    else:
        connection.execute(f"CREATE TABLE {name} ({_VIEWS[name]})")


def _paths(table: DeltaTable | None, folder: Folder) -> list[str]:
    return [f"{folder.url}/{file.path}" for file in list_files(table)] if table else []
