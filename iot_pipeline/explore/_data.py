"""All that the page asks of the warehouse."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from iot_pipeline import connect, get_measurements
from iot_pipeline.delta import open_table
from iot_pipeline.errors import ConfigurationError, IotPipelineError
from iot_pipeline.explore._fleet import Events, group_incidents, severities
from iot_pipeline.explore._thin import FloatArray, IntArray
from iot_pipeline.snapshot import take_snapshot
from iot_pipeline.warehouse import open_warehouse

KINDS = ("spike", "burst", "level_shift", "drift", "stuck", "variance", "gap")
ANNOTATIONS = ("confirmed", "false_alarm", "maintenance")
_ALL_TIME = ("1970-01-01", "2199-12-31")
_KEPT_SENSORS = 32  # 3.4 MB each for three years of readings

Version = tuple[object, ...]
Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor as the tables know it.

    Attributes:
        name: Its name.
        labels: What else the mapping says of it, by column.
        model: The kind of its model; empty before it has been judged.
        reasoning: Why this model, in a sentence.
        n_readings: How many it was judged on.
        n_events: How many events were found.
        severity: The sum of their peak scores.
    """

    name: str
    labels: dict[str, str]
    model: str
    reasoning: str
    n_readings: int
    n_events: int
    severity: float


@dataclass(frozen=True, eq=False, slots=True)
class Flags:
    """Flagged readings of one sensor.

    Attributes:
        instants: int64[n], microseconds since the epoch, ascending.
        values: float64[n].
        expected: float64[n], what the model says.
        kinds: int64[n], positions in `KINDS`; what is unknown there comes after them.
    """

    instants: IntArray
    values: FloatArray
    expected: FloatArray
    kinds: IntArray


@dataclass(frozen=True, eq=False, slots=True)
class Fleet:
    """All sensors and their events, of one version of the warehouse.

    Attributes:
        sensors: The most severe first.
        positions: Where a name is in `sensors`.
        events: Of all sensors; ``sensor`` is a position in `sensors`.
        kinds: The kinds of events by their number.
        flags: Flagged readings by sensor's name; a sensor without any has no entry.
    """

    sensors: tuple[Sensor, ...]
    positions: dict[str, int]
    events: Events
    kinds: tuple[str, ...]
    flags: dict[str, Flags]


@dataclass(frozen=True, eq=False, slots=True)
class Judged:
    """All readings of a sensor and its model.

    Attributes:
        instants: int64[n], microseconds since the epoch, ascending.
        values: float64[n].
        expected: float64[n], the model at the readings.
        noise: float64[n], the standard deviation of the noise at the readings.
        breakpoints: int64[b], microseconds since the epoch, where the trend bends or jumps.
    """

    instants: IntArray
    values: FloatArray
    expected: FloatArray
    noise: FloatArray
    breakpoints: IntArray


def read_version() -> Version:
    """Return what differs as soon as anything new has been committed, at the price of a few looks at files.

    Raises:
        WarehouseNotReadyError: Nothing has been loaded yet.
    """
    house = open_warehouse(None)
    snapshot, models = take_snapshot(house), open_table(house.sensor_models)
    return house, snapshot.version, snapshot.stamp, models and models.version()


@lru_cache(maxsize=1)
def read_fleet(version: Version) -> Fleet:
    """Read all sensors and events.

    Args:
        version: What `read_version` returned last; the answer is kept for it.
    """
    del version
    with connect() as connection:
        sensors = _rows(
            connection,
            "SELECT * EXCLUDE (breakpoints) FROM sensors LEFT JOIN sensor_models USING (sensor_name)"
            " ORDER BY sensor_name",
        )
        events = _columns(
            connection,
            """
            SELECT sensor_name, event_id, kind,
                epoch_us(min(timestamp)) AS start, epoch_us(max(timestamp)) AS "end",
                count(*) AS n_readings, max(score) AS peak_score,
                avg(sensor_value - expected_value) AS mean_residual
            FROM anomalies GROUP BY ALL ORDER BY start, sensor_name, event_id
            """,
        )
        flagged = _columns(
            connection,
            """
            SELECT sensor_name, epoch_us(timestamp) AS instant, sensor_value, expected_value, kind
            FROM anomalies ORDER BY sensor_name, instant
            """,
        )
    return _assemble(sensors, events, flagged)


@lru_cache(maxsize=_KEPT_SENSORS)
def judge(version: Version, sensor_name: str) -> Judged:
    """Read all readings of a sensor and fit its model, which is kept for the version.

    Raises:
        UnknownSensorError: The mapping has no such sensor.
    """
    from iot_pipeline.detection import detect_anomalies  # noqa: PLC0415 - scipy is slow to import

    del version
    readings = get_measurements(sensor_name, *_ALL_TIME, as_="arrow")
    instants = readings["timestamp"].cast("int64").to_numpy()
    values = readings["sensor_value"].to_numpy()
    times = instants.view("datetime64[us]")
    detection = detect_anomalies(times, values)
    model = detection.model
    noise = np.maximum(model.noise_at(times), np.finfo(np.float64).tiny) if len(times) else np.empty(0)
    breakpoints = np.array(model.breakpoints, "datetime64[us]").astype(np.int64)
    return Judged(instants, values, detection.expected, noise, breakpoints)


def warm_up() -> None:
    """Do once what is slow the first time, so that whoever comes first need not wait for it."""
    with suppress(IotPipelineError):  # who opens the page reads it there
        version = read_version()
        for sensor in read_fleet(version).sensors[:1]:
            judge(version, sensor.name)


def annotate(sensor_name: str, start: int, end: int, kind: str, *, note: str = "", author: str = "") -> None:
    """Say what a person knows of a range of a sensor's readings.

    Args:
        sensor_name: The sensor.
        start: Microseconds since the epoch.
        end: Likewise, included.
        kind: One of `ANNOTATIONS`.
        note: In words.
        author: Who says so.

    Raises:
        ConfigurationError: The warehouse has no table for it.
    """
    del sensor_name, start, end, kind, note, author
    raise ConfigurationError("annotations need a release of this package that keeps them: update it")


def _assemble(sensors: list[dict[str, Any]], events: Columns, flagged: Columns) -> Fleet:
    names = [row["sensor_name"] for row in sensors]
    known = {name: position for position, name in enumerate(names)}
    owner = np.array([known.get(name, -1) for name in events["sensor_name"]], np.int64)
    mapped = owner >= 0  # a sensor that the mapping has lost meanwhile
    severity = severities(owner[mapped], events["peak_score"][mapped], len(names))
    order = np.lexsort((np.arange(len(names)), -severity))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    kinds = tuple(dict.fromkeys([*KINDS, *events["kind"].tolist()]))
    number = {kind: position for position, kind in enumerate(kinds)}
    start, end = events["start"][mapped], events["end"][mapped]
    return Fleet(
        sensors=tuple(_sensor(sensors[row], float(severity[row])) for row in order),
        positions={names[row]: position for position, row in enumerate(order)},
        events=Events(
            sensor=place[owner[mapped]],
            event_id=events["event_id"][mapped],
            kind=np.array([number[kind] for kind in events["kind"][mapped]], np.int64),
            start=start,
            end=end,
            n_readings=events["n_readings"][mapped],
            peak_score=events["peak_score"][mapped],
            mean_residual=events["mean_residual"][mapped],
            incident=group_incidents(owner[mapped], start, end),
            annotation=("",) * int(mapped.sum()),
        ),
        kinds=kinds,
        flags=_flags(flagged, number),
    )


def _sensor(row: dict[str, Any], severity: float) -> Sensor:
    published = {"sensor_name", "model", "noise_sd", "n_points", "n_anomalies", "n_events", "reasoning"}
    labels = {name: str(value) for name, value in row.items() if name not in published and value is not None}
    return Sensor(
        row["sensor_name"],
        labels,
        row["model"] or "",
        row["reasoning"] or "",
        row["n_points"] or 0,
        row["n_events"] or 0,
        severity,
    )


def _flags(flagged: Columns, number: dict[str, int]) -> dict[str, Flags]:
    names = flagged["sensor_name"]
    if not len(names):
        return {}
    kinds = np.array([number[kind] for kind in flagged["kind"]], np.int64)
    edges = np.flatnonzero(names[1:] != names[:-1]) + 1
    columns = (flagged["instant"], flagged["sensor_value"], flagged["expected_value"], kinds)
    parts = zip(*(np.split(column, edges) for column in columns), strict=True)
    return {name: Flags(*part) for name, part in zip(names[np.append(0, edges)], parts, strict=True)}


def _rows(connection: duckdb.DuckDBPyConnection, statement: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(statement).to_arrow_table().to_pylist()
    return rows


def _columns(connection: duckdb.DuckDBPyConnection, statement: str) -> Columns:
    return {name: np.asarray(column) for name, column in connection.execute(statement).fetchnumpy().items()}
