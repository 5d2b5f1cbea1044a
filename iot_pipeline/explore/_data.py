"""All that the page asks of the warehouse."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from iot_pipeline.errors import IotPipelineError
from iot_pipeline.explore._fleet import Events, severities
from iot_pipeline.kinds import KINDS
from iot_pipeline.thinning import FloatArray, IntArray
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.annotations import read_maintenance
from iot_pipeline.warehouse.query import connect, get_measurements
from iot_pipeline.warehouse.state import read_state

_KEPT_SENSORS = 16  # 3.4 MB each for three years of readings

Version = tuple[object, ...]
Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor as the tables know it.

    Attributes:
        name: Its name.
        uuid: What the readings call it.
        labels: What else the mapping says of it.
        model: The kind of its model; empty before it has been judged.
        reasoning: Why this model, in a sentence.
        n_readings: How many it was judged on.
        n_events: How many events were found.
    """

    name: str
    uuid: str
    labels: tuple[str, ...]
    model: str
    reasoning: str
    n_readings: int
    n_events: int


@dataclass(frozen=True, eq=False, slots=True)
class Flags:
    """Flagged readings of one sensor.

    Attributes:
        instants: int64[n], microseconds since the epoch, ascending.
        values: float64[n].
        expected: float64[n], what the model says.
        kinds: int64[n], positions in the fleet's ``kinds``.
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
        kinds: The kinds of events by their number: those of `KINDS`, then others that the tables have.
        flags: Flagged readings by sensor's name; a sensor without any has no entry.
        extent: The first and the last reading of all sensors, in microseconds since the epoch; now, where
            there is none.
    """

    sensors: tuple[Sensor, ...]
    positions: dict[str, int]
    events: Events
    kinds: tuple[str, ...]
    flags: dict[str, Flags]
    extent: tuple[int, int]


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
    state = read_state(open_warehouse(None), with_verdicts=True)
    latest = (
        linked.last.version if linked and linked.last else None
        for linked in (state.verdicts, state.annotations)
    )
    return state.warehouse, state.stamp, *latest


@lru_cache(maxsize=1)
def read_fleet(version: Version) -> Fleet:
    """Read all sensors and events.

    Args:
        version: What `read_version` returned last; the answer is kept for it.
    """
    del version
    with connect() as connection:
        # Numbers in place of names: a million of them are a few megabytes.
        connection.execute("CREATE TYPE name AS ENUM (SELECT sensor_name FROM sensors ORDER BY sensor_name)")
        connection.execute(
            "CREATE TYPE kind AS ENUM"
            " (SELECT kind FROM (SELECT unnest($kinds) AS kind UNION SELECT kind FROM events)"
            " ORDER BY list_position($kinds, kind), kind)",
            {"kinds": list(KINDS)},
        )
        (kinds,) = connection.execute("SELECT enum_range(NULL::kind)").fetchall()[0]
        known = connection.execute("""
            SELECT coalesce(judged.model, ''), coalesce(judged.reasoning, ''), coalesce(judged.n_points, 0),
                coalesce(judged.n_events, 0), sensors.*
            FROM sensors LEFT JOIN sensor_models AS judged USING (sensor_name) ORDER BY sensor_name
        """).fetchall()
        (extent,) = connection.execute(
            "SELECT epoch_us(coalesce(min(timestamp), now())), epoch_us(coalesce(max(timestamp), now()))"
            " FROM measurements"
        ).fetchall()
        events = _columns(
            connection,
            """
            SELECT enum_code(sensor_name::name) AS sensor, enum_code(kind::kind) AS kind,
                epoch_us(events.start) AS start, epoch_us(events."end") AS "end", peak_score,
                if(count(*) OVER (PARTITION BY incident_id) > 1,
                    dense_rank() OVER (ORDER BY incident_id), -1) AS incident,
                coalesce(annotation, '') AS annotation
            FROM events SEMI JOIN sensors USING (sensor_name) ORDER BY start, sensor, event_id
            """,
        )
        flagged = _columns(
            connection,
            """
            SELECT enum_code(sensor_name::name) AS sensor, epoch_us(timestamp) AS instant,
                sensor_value, expected_value, enum_code(kind::kind) AS kind
            FROM anomalies SEMI JOIN sensors USING (sensor_name) ORDER BY sensor, instant
            """,
        )
    sensors = [
        Sensor(name, uuid, tuple(filter(None, labels)), model, reasoning, n_readings, n_events)
        for model, reasoning, n_readings, n_events, name, uuid, *labels in known
    ]
    return _assemble(sensors, tuple(kinds), events, flagged, extent)


@lru_cache(maxsize=_KEPT_SENSORS)
def judge(version: Version, sensor_name: str) -> Judged:
    """Read all readings of a sensor and fit its model, which is kept for the version.

    Raises:
        UnknownSensorError: The mapping has no such sensor.
    """
    from iot_pipeline.detection import detect_anomalies  # noqa: PLC0415 - scipy is slow

    del version
    readings = get_measurements(sensor_name, as_="arrow")
    instants = readings["timestamp"].cast("int64").to_numpy()
    values = readings["sensor_value"].to_numpy()
    times = instants.view("datetime64[us]")
    maintenance = read_maintenance(open_warehouse(None)).get(sensor_name, ())
    detection = detect_anomalies(times, values, maintenance)
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


def _assemble(
    sensors: list[Sensor],
    kinds: tuple[str, ...],
    events: Columns,
    flagged: Columns,
    extent: tuple[int, int],
) -> Fleet:
    names = [sensor.name for sensor in sensors]
    true = events["annotation"] != "false_alarm"
    severity = severities(events["sensor"][true], events["peak_score"][true], len(names))
    order = np.argsort(-severity, kind="stable")
    place = np.argsort(order)
    return Fleet(
        sensors=tuple(sensors[row] for row in order),
        positions=dict(zip(names, place.tolist(), strict=True)),
        events=Events(**events | {"sensor": place[events["sensor"]]}),
        kinds=kinds,
        flags=_flags(names, flagged),
        extent=extent,
    )


def _flags(names: list[str], flagged: Columns) -> dict[str, Flags]:
    sensor = flagged["sensor"]
    if not len(sensor):
        return {}
    edges = np.flatnonzero(np.diff(sensor)) + 1
    columns = (flagged[name] for name in ("instant", "sensor_value", "expected_value", "kind"))
    parts = zip(*(np.split(column, edges) for column in columns), strict=True)
    owners = (names[number] for number in sensor[np.append(0, edges)])
    return {name: Flags(*part) for name, part in zip(owners, parts, strict=True)}


def _columns(connection: duckdb.DuckDBPyConnection, statement: str) -> Columns:
    columns = connection.execute(statement).fetchnumpy().items()
    types = {"f": np.float64, "O": np.object_}
    # What could be NULL comes masked.
    return {name: np.asarray(column, types.get(column.dtype.kind, np.int64)) for name, column in columns}
