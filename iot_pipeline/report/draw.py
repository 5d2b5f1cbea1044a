"""Pictures and the report page of a warehouse: reads readings, judges them and draws.

A picture needs the whole fitted model, which the tables don't hold. Fitting it again takes milliseconds.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.errors import IotPipelineError, WarehouseNotReadyError
from iot_pipeline.report.charts import plot_counts
from iot_pipeline.report.page import LastReport, render_report
from iot_pipeline.report.plot import plot_sensor, render
from iot_pipeline.report.sparkline import read_sparklines
from iot_pipeline.settings import get_settings
from iot_pipeline.store import Store
from iot_pipeline.warehouse import open_warehouse, readable_write_errors
from iot_pipeline.warehouse.annotations import read_maintenance
from iot_pipeline.warehouse.events import find_events, rank_sensors
from iot_pipeline.warehouse.query import Moment, connect, get_measurements, read_moment
from iot_pipeline.warehouse.state import HOW_TO_JUDGE
from iot_pipeline.warehouse.views import readable_errors

MOST_PICTURES = 12
MOST_SPARKLINES = 500
_FAR = 2**62
"""Microseconds from the epoch, beyond all readings."""
LAST = "last.json"
"""What the last report told of, beside the page."""


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """What was written.

    Attributes:
        page: Where the HTML page is.
        pictures: The PNG pictures of the worst sensors by sensor name, the worst first.
        failed: What went wrong, by the name of the sensor that could not be drawn.
    """

    page: str
    pictures: dict[str, bytes]
    failed: dict[str, str]


def draw_sensor(
    sensor_name: str,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    picture_format: str = "png",
    warehouse: str | Path | None = None,
) -> bytes:
    """Return the picture that ``plot`` makes as a file's content.

    Args:
        sensor_name: As for ``plot``, which raises the errors too.
        start: Likewise.
        end: Likewise.
        picture_format: One of matplotlib's: png, svg, pdf …
        warehouse: Likewise.
    """
    return render(plot(sensor_name, start, end, warehouse=warehouse), picture_format)


def plot(
    sensor_name: str,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    warehouse: str | Path | None = None,
) -> Figure:
    """Draw a sensor's readings, its model and what is anomalous.

    The model is always fitted to all readings of the sensor; the range says which part is shown.

    Args:
        sensor_name: Like ``sensor_00000``.
        start: As for ``get_measurements``; by default the first reading.
        end: Likewise; by default the last reading.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Returns:
        A matplotlib figure: a notebook shows it, ``savefig`` writes it.

    Raises:
        UnknownSensorError: The mapping has no such sensor.
        ValueError: A time can't be read, the start is after the end, or the range holds no reading.
        WarehouseNotReadyError: Nothing has been loaded yet.
    """
    bounds = [read_moment(m) if m is not None else far for m, far in ((start, -_FAR), (end, _FAR))]
    first, last = np.array(bounds, "datetime64[us]")
    if first > last:
        raise ValueError(f"start {start} is after end {end}")
    readings = get_measurements(sensor_name, warehouse=warehouse)
    timestamps = readings["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    values = readings["sensor_value"].to_numpy()
    if not ((timestamps >= first) & (timestamps <= last)).any():
        raise ValueError(explain_no_readings(sensor_name, readings))
    maintenance = read_maintenance(open_warehouse(warehouse)).get(sensor_name, ())
    detection = detect_anomalies(timestamps, values, maintenance)
    return plot_sensor(sensor_name, timestamps, values, detection, start=first, end=last)


def explain_no_readings(sensor_name: str, readings: pd.DataFrame) -> str:
    """Say that a range of time holds nothing, and where a sensor's readings are.

    Args:
        sensor_name: The sensor's name.
        readings: All its readings, as ``get_measurements`` returns them.
    """
    if readings.empty:
        return f"{sensor_name} has no readings at all"
    first, last = readings["timestamp"].iloc[[0, -1]]
    span = f"from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
    return f"{sensor_name} has no readings in that range of time: it has some {span}"


def draw_readings_per_month(*, warehouse: str | Path | None = None) -> bytes | None:
    """Draw how many readings each month has; None when there are none.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
    """
    with connect(warehouse) as connection, readable_errors():
        months = connection.execute("""
            SELECT month, sum(rows.loaded)::BIGINT
            FROM (SELECT unnest(months) AS month, unnest(month_rows) AS rows FROM source_files)
            GROUP BY month
        """).fetchall()
    return render(plot_counts({"readings": dict(months)}, what="readings", per="month")) if months else None


def draw_anomalies_per_week(*, warehouse: str | Path | None = None) -> bytes | None:
    """Draw how many readings of each week are anomalous, by kind, without false alarms; None when none is.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
    """
    with connect(warehouse) as connection, readable_errors():
        weeks = connection.execute("""
            SELECT anomalies.kind, date_trunc('week', timestamp)::DATE::VARCHAR, count(*)
            FROM anomalies JOIN events USING (event_id)
            WHERE annotation IS DISTINCT FROM 'false_alarm'
            GROUP BY ALL ORDER BY ALL
        """).fetchall()
    counts: dict[str, dict[str, int]] = {}
    for kind, week, count in weeks:
        counts.setdefault(kind, {})[week] = count
    return render(plot_counts(counts, what="anomalous readings", per="week")) if counts else None


def write_report(*, warehouse: str | Path | None = None) -> ReportFiles:
    """Write the page about all sensors and the pictures of the worst ones; earlier pictures go.

    A sensor that can't be drawn is named on the page. What is new on it is what the page before didn't have.

    Args:
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Raises:
        WarehouseNotReadyError: No models have been fitted yet, or no sensor of the mapping has readings.
        WarehouseError: The disk is full, or another fault in writing. What was written before stays.
    """
    opened = open_warehouse(warehouse)
    with connect(warehouse) as connection, readable_errors():
        sensors = rank_sensors(connection).to_arrow_table().to_pandas()
        events = find_events(connection).to_arrow_table().to_pandas()
        incidents = connection.sql("FROM incidents WHERE n_sensors > 1").to_arrow_table().to_pandas()
        unjudged = connection.sql("""
            SELECT sensor_name FROM sensors ANTI JOIN sensor_models USING (sensor_name) ORDER BY sensor_name
        """).fetchall()
        if sensors.empty:
            known = connection.sql(
                "FROM sensors SEMI JOIN measurements USING (sensor_name) LIMIT 1"
            ).fetchall()
            raise WarehouseNotReadyError(
                f"no models have been fitted in {opened.url} yet: {HOW_TO_JUDGE}"
                if known
                else f"no sensor of the mapping has readings in {opened.url}: check IOT_SOURCE"
            )
        eventful = sensors.loc[sensors["n_events"] > 0, "sensor_name"].head(MOST_SPARKLINES)
        sparklines = read_sparklines(connection, eventful.tolist(), events)
    created, report = datetime.now(UTC), opened.report
    pictures: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    files = {"index.html"}
    worst = sensors.loc[sensors["n_anomalies"] > 0, "sensor_name"].head(MOST_PICTURES)
    for rank, sensor_name in enumerate(worst, start=1):
        try:
            pictures[sensor_name] = draw_sensor(sensor_name, warehouse=warehouse)
        except Exception as error:
            if isinstance(error, IotPipelineError):  # the warehouse's fault, not the sensor's
                raise
            failed[sensor_name] = f"{type(error).__name__}: {error}"
            continue
        name = f"worst-{rank:02}.png"
        files.add(name)
        _publish(report, name, pictures[sensor_name])
    html = render_report(
        sensors,
        events,
        incidents,
        source=get_settings().source,
        warehouse=opened.url,
        created=created,
        last=_read_last(report),
        pictures=pictures,
        sparklines=sparklines,
        failures=failed,
        unjudged=[name for (name,) in unjudged],
    )
    _publish(report, "index.html", html.encode())
    told = {"created": created.isoformat(), "event_ids": events["event_id"].tolist()}
    _publish(report, LAST, json.dumps(told).encode())
    for file in report.list_objects():
        if file.name.startswith("worst-") and file.name not in files:
            report.delete(file.name)
    return ReportFiles(f"{report.url}/index.html", pictures, failed)


def _read_last(report: Store) -> LastReport | None:
    """Return what the last report told of; None where there is none that can be read."""
    try:
        with report.fetch([LAST]) as (path,):
            last = json.loads(path.read_bytes())
        return LastReport(datetime.fromisoformat(last["created"]), frozenset(last["event_ids"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _publish(report: Store, name: str, content: bytes) -> None:
    with readable_write_errors(f"{report.url}/{name}"), report.publish(name) as part:
        part.write_bytes(content)
