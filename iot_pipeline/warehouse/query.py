"""Reading the warehouse: some sensors' readings in milliseconds, or anything in SQL."""

from collections.abc import Iterable
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from iot_pipeline.berlin import BERLIN, TIME_ZONE, month_of, read_day, to_instant
from iot_pipeline.errors import ConfigurationError, DamagedTableError
from iot_pipeline.warehouse._layout import Warehouse, open_warehouse
from iot_pipeline.warehouse.buckets import SUMMARY, Every, summarize
from iot_pipeline.warehouse.readings import Readings, read_readings
from iot_pipeline.warehouse.state import State, read_state
from iot_pipeline.warehouse.views import connect_to

if TYPE_CHECKING:
    import polars as pl

Moment = str | date | datetime
As = Literal["pandas", "polars", "arrow"]
Rows = tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]
"""A sensor's instants (microseconds since the epoch) and, by name, its other columns."""

EARLIEST, LATEST = (to_instant(datetime(year, 1, 1)) for year in (1970, 2200))  # noqa: DTZ001 - Berlin's
"""What no reading lies before or after."""
_BATCH_SENSORS = 64
"""How many sensors are read at once: of three years, about 200 MB."""
_NOTHING: Readings = (np.empty(0, "datetime64[us]"), np.empty(0, np.float64))


@overload
def get_measurements(
    sensor_name: str | Iterable[str],
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    every: Every | None = None,
    as_: Literal["pandas"] = "pandas",
    warehouse: str | Path | None = None,
) -> pd.DataFrame: ...


@overload
def get_measurements(
    sensor_name: str | Iterable[str],
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    every: Every | None = None,
    as_: Literal["polars"],
    warehouse: str | Path | None = None,
) -> "pl.DataFrame": ...


@overload
def get_measurements(
    sensor_name: str | Iterable[str],
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    every: Every | None = None,
    as_: Literal["arrow"],
    warehouse: str | Path | None = None,
) -> pa.Table: ...


def get_measurements(
    sensor_name: str | Iterable[str],
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    every: Every | None = None,
    as_: As = "pandas",
    warehouse: str | Path | None = None,
) -> "pd.DataFrame | pl.DataFrame | pa.Table":
    """Return the readings of one or several sensors in a range of time, both ends included.

    A date means its midnight. So ``"2013-10-05", "2013-10-06"`` is October 5th and a reading at the midnight
    that ends it; to include the 6th as well, write ``"2013-10-07"``, or ``"2013-10-06T23:59:59.999999"``.

    Args:
        sensor_name: Like ``sensor_00000``, or several names.
        start: ISO 8601 text, a date (its midnight), a datetime or a pandas Timestamp; without a time zone
            it means Europe/Berlin. Or ``today``, ``yesterday`` or ``7 days ago`` (its midnight). None for
            the first reading.
        end: Likewise; None for the last reading.
        every: Sum up the readings of each ``"15min"``, ``"1h"``, ``"1d"``, ``"1w"`` (from Monday on) or
            ``"1mo"`` by Berlin's clock: days begin at midnight and have 23 or 25 hours when it changes, and
            the hour that it shows twice is two buckets. Only readings in the range count.
        as_: What to return: a pandas or polars frame or an Arrow table.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Returns:
        Columns ``timestamp`` (microseconds, Europe/Berlin) and ``sensor_value`` (float64), ascending; no
        reading in the range: no row. For several names, ``sensor_name`` stands in front, and the sensors
        follow one another in the order of the names. With ``every``, a row for each bucket that has
        readings: ``timestamp`` at which it begins, ``n`` (int64), ``mean``, ``min``, ``max``, ``first`` and
        ``last`` (float64).

    Raises:
        UnknownSensorError: The mapping has no such sensor.
        ValueError: A time can't be read, the start is after the end, or there is no such ``every``.
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be read.
    """
    check_as(as_)
    if every is not None and every not in get_args(Every):
        raise ValueError(f"every must be one of {', '.join(get_args(Every))}, not {every!r}")
    first = EARLIEST if start is None else read_moment(start)
    last = LATEST if end is None else read_moment(end)
    if first > last:
        raise ValueError(f"start {start} is after end {end}")
    names = [sensor_name] if isinstance(sensor_name, str) else list(dict.fromkeys(sensor_name))
    found = _fetch(open_warehouse(warehouse), names, first, last, every)
    instants = _concatenate([part for part, _ in found], np.int64)
    columns = {
        name: _concatenate([part[name] for _, part in found], np.int64 if name == "n" else np.float64)
        for name in (SUMMARY if every else ["sensor_value"])
    }
    owners = None
    if not isinstance(sensor_name, str):
        repeated = [pa.repeat(name, len(part)) for name, (part, _) in zip(names, found, strict=True)]
        owners = pa.chunked_array(repeated, pa.string())
    return _table(instants, columns, owners, as_)


def _table(
    instants: npt.NDArray[np.int64],
    columns: dict[str, npt.NDArray[Any]],
    owners: pa.ChunkedArray | None,
    as_: As,
) -> "pd.DataFrame | pl.DataFrame | pa.Table":
    """Return columns as a table, with the rows' sensors in front if there may be several."""
    if as_ == "pandas":
        timestamps = pd.DatetimeIndex(instants.view("datetime64[us]"), tz="UTC").tz_convert(TIME_ZONE)
        frame = pd.DataFrame({"timestamp": timestamps, **columns}, copy=False)
        if owners is not None:
            frame.insert(0, "sensor_name", owners.to_pandas())
        return frame
    arrays = {"timestamp": pa.array(instants).view(pa.timestamp("us", TIME_ZONE)), **columns}
    return as_frame(pa.table(arrays if owners is None else {"sensor_name": owners} | arrays), as_)


def check_as(as_: As) -> None:
    """Raise a ``ValueError`` if there is no such kind of table."""
    if as_ not in get_args(As):
        raise ValueError(f"as_ must be 'pandas', 'polars' or 'arrow', not {as_!r}")


def as_frame(rows: pa.Table, as_: As) -> "pd.DataFrame | pl.DataFrame | pa.Table":
    """Return a table as a pandas or polars frame, or as it is.

    Raises:
        ConfigurationError: Polars is not installed.
    """
    if as_ == "arrow":
        return rows
    if as_ == "pandas":
        frame: pd.DataFrame = rows.to_pandas()
        return frame
    try:
        import polars as pl  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "polars is not installed, as as_='polars' needs it: run: pip install 'iot-pipeline[polars]'"
        ) from error
    return pl.DataFrame(rows)


def _concatenate(parts: list[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def _fetch(warehouse: Warehouse, names: list[str], first: int, last: int, every: Every | None) -> list[Rows]:
    """Fetch from the latest state; from a later one, if a load has deleted files that it names meanwhile."""
    state = read_state(warehouse)
    while True:
        try:
            return _fetch_from(state, names, first, last, every)
        except DamagedTableError:
            latest = read_state(warehouse, fresh=True)
            if latest == state:
                raise
            state = latest


def _fetch_from(state: State, names: list[str], first: int, last: int, every: Every | None) -> list[Rows]:
    """Read for each sensor the instants between two, ascending, and the columns that are asked for."""
    sensors = {state.uuid_of(name): name for name in names}
    found: dict[str, Rows] = {}
    ordered = sorted(sensors)  # as the files are
    for start in range(0, len(ordered), _BATCH_SENSORS):
        uuids = ordered[start : start + _BATCH_SENSORS]
        paths = state.paths(uuids, month_of(first), month_of(last))
        readings = read_readings(state.warehouse, paths, uuids)
        for sensor_uuid in uuids:
            instants, values = _between(readings.get(sensor_uuid, _NOTHING), first, last)
            found[sensors[sensor_uuid]] = (
                summarize(instants, values, every) if every else (instants, {"sensor_value": values})
            )
    return [found[name] for name in names]


def _between(
    readings: Readings, first: int, last: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Cut out a range of time; a condition on the time would cost DuckDB a third of a scan of everything."""
    instants, values = readings[0].view(np.int64), readings[1]
    inside = slice(np.searchsorted(instants, first), np.searchsorted(instants, last, side="right"))
    return instants[inside], values[inside]


def connect(
    warehouse: str | Path | None = None, *, connection: duckdb.DuckDBPyConnection | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection on one consistent version of all tables.

    It has these views. Times are TIMESTAMPTZ, shown in Europe/Berlin::

        sensors(sensor_name, sensor_uuid), and what else mapping.csv says
        measurements(sensor_name, sensor_uuid, timestamp, sensor_value)
        last_readings(sensor_name, sensor_uuid, timestamp, sensor_value)
        events(event_id, sensor_name, kind, start, end, n_readings, peak_score, mean_residual,
            incident_id, annotation)
        incidents(incident_id, start, end, n_sensors, n_events, kinds, strongest_sensor, peak_score)
        anomalies(sensor_name, timestamp, sensor_value, expected_value, score, kind, event_id)
        sensor_models(sensor_name, model, breakpoints, noise_sd, n_points, n_anomalies, n_events,
            reasoning)
        annotations(annotation_id, sensor, start, end, kind, note, author, created_at)
        source_files(key, version, size, fragment, error, rows_read, rows_loaded, rows_rejected,
            rows_duplicate, rows_in_missing_hour, months, month_rows, loaded_at, broken_fragment)
        rejected_rows(source_key, line_number, reason, raw, n)

    A question about some sensors and a range of time, as ``sensor_name`` and ``timestamp`` in ``WHERE``,
    reads only what it needs. ``last_readings`` has the last reading of each sensor, in a third of the time
    that grouping ``measurements`` takes; of several values at that time, one of them. The connection is in
    memory and the caller's own; later loads don't change what it sees. Where a table's files are damaged,
    its view raises an error that says what to run, and the others work: an empty view would say that there
    are no anomalies.

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
            moment = read_day(moment, datetime.now(BERLIN).date()) or datetime.fromisoformat(moment.strip())
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        return int(to_instant(moment))  # pandas' NaT gives NaN, which int refuses
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"can't read the time {moment!r}: write it like 2013-01-31, 2013-01-31T12:00+01:00 or yesterday"
        ) from error
