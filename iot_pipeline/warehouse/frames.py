"""Events and sensors as frames, for whoever works in Python."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import pandas as pd
import pyarrow as pa

from iot_pipeline.warehouse._layout import open_warehouse
from iot_pipeline.warehouse.events import find_events, find_sensors
from iot_pipeline.warehouse.query import As, Moment, as_frame, check_as, read_moment
from iot_pipeline.warehouse.views import connect_to, readable_errors

if TYPE_CHECKING:
    import polars as pl


@overload
def get_anomalies(
    start: Moment | None = None,
    end: Moment | None = None,
    sensor_name: str | None = None,
    *,
    as_: Literal["pandas"] = "pandas",
    warehouse: str | Path | None = None,
) -> pd.DataFrame: ...


@overload
def get_anomalies(
    start: Moment | None = None,
    end: Moment | None = None,
    sensor_name: str | None = None,
    *,
    as_: Literal["polars"],
    warehouse: str | Path | None = None,
) -> "pl.DataFrame": ...


@overload
def get_anomalies(
    start: Moment | None = None,
    end: Moment | None = None,
    sensor_name: str | None = None,
    *,
    as_: Literal["arrow"],
    warehouse: str | Path | None = None,
) -> pa.Table: ...


def get_anomalies(
    start: Moment | None = None,
    end: Moment | None = None,
    sensor_name: str | None = None,
    *,
    as_: As = "pandas",
    warehouse: str | Path | None = None,
) -> "pd.DataFrame | pl.DataFrame | pa.Table":
    """Return the events that reach into a range of time, the newest first.

    Args:
        start: As for ``get_measurements``; by default the first event.
        end: Likewise; by default the last event.
        sensor_name: Only those of this sensor.
        as_: What to return: a pandas or polars frame or an Arrow table.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Returns:
        Columns sensor_name, kind, start, end (microseconds, Europe/Berlin), duration_h (hours), n_readings,
        peak_score (in standard deviations of a Gaussian as rare), mean_residual (in the unit of the values;
        missing for a gap), annotation, event_id and incident_id. A gap starts at the last reading before it.

    Raises:
        UnknownSensorError: The mapping has no such sensor.
        ValueError: A time can't be read, or the start is after the end.
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be read.
    """
    check_as(as_)
    since, until = (None if moment is None else read_moment(moment) for moment in (start, end))
    if since is not None and until is not None and since > until:
        raise ValueError(f"start {start} is after end {end}")
    connection, state = connect_to(open_warehouse(warehouse))
    with connection, readable_errors(state.warehouse.url):
        if sensor_name is not None:
            state.uuid_of(sensor_name)  # raises if there is none
        events = find_events(connection, sensor_name=sensor_name, since=since, until=until)
        return as_frame(events.to_arrow_table(), as_)


@overload
def list_sensors(
    *, as_: Literal["pandas"] = "pandas", warehouse: str | Path | None = None
) -> pd.DataFrame: ...


@overload
def list_sensors(*, as_: Literal["polars"], warehouse: str | Path | None = None) -> "pl.DataFrame": ...


@overload
def list_sensors(*, as_: Literal["arrow"], warehouse: str | Path | None = None) -> pa.Table: ...


def list_sensors(
    *, as_: As = "pandas", warehouse: str | Path | None = None
) -> "pd.DataFrame | pl.DataFrame | pa.Table":
    """Return all sensors of the mapping by name.

    Args:
        as_: As for ``get_anomalies``.
        warehouse: Likewise.

    Returns:
        Columns sensor_name, sensor_uuid, what else ``mapping.csv`` says (text), first and last (times of the
        first and the last reading, Europe/Berlin) and n_readings.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
        WarehouseError: The warehouse can't be read.
    """
    check_as(as_)
    connection, state = connect_to(open_warehouse(warehouse))
    with connection, readable_errors(state.warehouse.url):
        return as_frame(find_sensors(connection).to_arrow_table(), as_)
