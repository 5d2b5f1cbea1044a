"""The readings of some sensors as numpy arrays, through one DuckDB database that a process keeps open."""

import os
import threading
from functools import cache
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from iot_pipeline.store import Store
from iot_pipeline.warehouse._layout import Warehouse
from iot_pipeline.warehouse.views import open_database, readable_errors

Readings = tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64]]
"""A sensor's times (datetime64[us] in UTC, ascending) and values."""


def read_readings(warehouse: Warehouse, paths: list[str], sensor_uuids: list[str]) -> dict[str, Readings]:
    """Read all readings of some sensors in some files.

    Args:
        warehouse: The warehouse.
        paths: Parquet files of a state of it, month by month.
        sensor_uuids: Which sensors.

    Returns:
        By uuid, for those that have readings: datetime64[us][n] in UTC, ascending, and float64[n].
    """
    if not paths:
        return {}
    # Of one sensor, a constant finds the row groups, and the files' order is that of time.
    is_one = len(sensor_uuids) == 1
    sensor = "" if is_one else "list_position($uuids, sensor_uuid)::SMALLINT AS sensor, "
    which = "= $uuids" if is_one else "IN (SELECT unnest($uuids))"
    statement = (
        f"SELECT {sensor}epoch_us(timestamp) AS instant, sensor_value"
        f" FROM read_parquet($paths, hive_partitioning = false) WHERE sensor_uuid {which}"
    )
    parameters = {"paths": paths, "uuids": sensor_uuids[0] if is_one else sensor_uuids}
    with readable_errors(warehouse.url):
        rows: dict[str, Any] = _cursor(warehouse.root).execute(statement, parameters).fetchnumpy()
    times, values = rows["instant"].view("datetime64[us]"), rows["sensor_value"]
    if is_one:
        return {sensor_uuids[0]: (times, values)} if len(times) else {}
    order = np.argsort(rows["sensor"], kind="stable")
    ends = np.cumsum(np.bincount(rows["sensor"], minlength=len(sensor_uuids) + 1)[1:])[:-1]
    parts = zip(sensor_uuids, np.split(times[order], ends), np.split(values[order], ends), strict=True)
    return {uuid: _in_order(*part) for uuid, *part in parts if len(part[0])}


def _in_order(times: npt.NDArray[np.datetime64], values: npt.NDArray[np.float64]) -> Readings:
    """Sort readings by time, and by value where times are equal.

    They come in a few ascending runs, which the stable sort merges ten times faster than DuckDB sorts.
    """
    order = np.argsort(times, kind="stable")
    if np.any(times[order[1:]] == times[order[:-1]]):
        order = np.lexsort((values, times))
    return times[order], values[order]


@cache
def _database_of(_process: int, root: Store) -> duckdb.DuckDBPyConnection:
    return open_database(root)


_of_thread = threading.local()


def _cursor(root: Store) -> duckdb.DuckDBPyConnection:
    """Return the thread's cursor on the process' database; one of before a fork has lost its threads."""
    owner = os.getpid(), root
    if getattr(_of_thread, "owner", None) != owner:
        _of_thread.owner, _of_thread.cursor = owner, _database_of(*owner).cursor()
    cursor: duckdb.DuckDBPyConnection = _of_thread.cursor
    return cursor
