"""Pictures and the report page of a warehouse: reads readings, judges them and draws.

A picture needs the whole fitted model, which the tables don't hold. Fitting it again takes milliseconds.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from iot_pipeline.charts import plot_counts
from iot_pipeline.clock import TIME_ZONE
from iot_pipeline.detection import detect_anomalies
from iot_pipeline.errors import WarehouseNotReadyError
from iot_pipeline.plot import plot_sensor, png
from iot_pipeline.report import render_report
from iot_pipeline.warehouse import open_warehouse, readable_write_errors
from iot_pipeline.warehouse.query import Moment, connect, get_measurements, read_moment
from iot_pipeline.warehouse.views import readable_errors

ALL_TIME = ("1970-01-01", "2199-12-31")


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """What was written.

    Attributes:
        page: Where the HTML page is.
        pictures: The PNG pictures of the worst sensors by sensor name, the worst first.
    """

    page: str
    pictures: dict[str, bytes]


def draw_sensor(
    sensor_name: str,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    warehouse: str | Path | None = None,
) -> bytes:
    """Draw a sensor's readings, its model and what is anomalous.

    The model is always fitted to all readings of the sensor; the range says which part is shown.

    Args:
        sensor_name: Like ``sensor_00000``.
        start: As for ``get_measurements``; by default the first reading.
        end: Likewise; by default the last reading.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Returns:
        A PNG picture.

    Raises:
        UnknownSensorError: The mapping has no such sensor.
        ValueError: A time can't be read, or the range holds no reading.
        WarehouseNotReadyError: Nothing has been loaded yet.
    """
    bounds = [np.datetime64(read_moment(m), "us") if m is not None else None for m in (start, end)]
    readings = get_measurements(sensor_name, *ALL_TIME, warehouse=warehouse)
    timestamps = readings["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    values = readings["sensor_value"].to_numpy()
    shown = np.ones(len(values), dtype=bool)
    if bounds[0] is not None:
        shown &= timestamps >= bounds[0]
    if bounds[1] is not None:
        shown &= timestamps <= bounds[1]
    if not shown.any():
        raise ValueError(f"{sensor_name} has no readings to draw in that range of time")
    detection = detect_anomalies(timestamps, values)
    return png(plot_sensor(sensor_name, timestamps, values, detection, start=bounds[0], end=bounds[1]))


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
    return png(plot_counts({"readings": dict(months)}, what="readings", per="month")) if months else None


def draw_anomalies_per_week(*, warehouse: str | Path | None = None) -> bytes | None:
    """Draw how many readings of each week are anomalous, by kind; None when none is.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
    """
    with connect(warehouse) as connection, readable_errors():
        weeks = connection.execute("""
            SELECT kind, date_trunc('week', timestamp)::DATE::VARCHAR, count(*)
            FROM anomalies GROUP BY ALL ORDER BY ALL
        """).fetchall()
    counts: dict[str, dict[str, int]] = {}
    for kind, week, count in weeks:
        counts.setdefault(kind, {})[week] = count
    return png(plot_counts(counts, what="anomalous readings", per="week")) if counts else None


def write_report(*, warehouse: str | Path | None = None) -> ReportFiles:
    """Write the page about all sensors and the pictures of the worst ones.

    Args:
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Raises:
        WarehouseNotReadyError: No models have been fitted yet.
        WarehouseError: The disk is full, or another fault in writing. What was written before stays.
    """
    opened = open_warehouse(warehouse)
    with connect(warehouse) as connection, readable_errors():
        anomalies = connection.sql("FROM anomalies").to_arrow_table().to_pandas()
        models = connection.sql("FROM sensor_models").to_arrow_table().to_pandas()
    if models.empty:
        raise WarehouseNotReadyError(
            f"no models have been fitted in {opened.url} yet:"
            " run: dagster asset materialize --select anomalies"
        )
    anomalies["timestamp"] = anomalies["timestamp"].dt.tz_convert(TIME_ZONE)
    pictures: dict[str, bytes] = {}

    def picture(sensor_name: str) -> bytes:
        image = pictures[sensor_name] = draw_sensor(sensor_name, warehouse=warehouse)
        name = f"worst-{len(pictures):02}.png"
        with readable_write_errors(f"{opened.report.url}/{name}"), opened.report.publish(name) as part:
            part.write_bytes(image)
        return image

    html = render_report(anomalies, models, picture=picture, created=datetime.now(UTC))
    page = f"{opened.report.url}/index.html"
    with readable_write_errors(page), opened.report.publish("index.html") as part:
        part.write_text(html, encoding="utf-8")
    return ReportFiles(page, pictures)
