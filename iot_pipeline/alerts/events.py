"""The events that alerts are about, as the warehouse has them. Nothing else of the alerts reads them."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import duckdb

from iot_pipeline.berlin import from_instant

KEPT = timedelta(days=30)
"""How long before the last reading an event may have ended to be read at all."""
_MOMENTARY = ("spike", "gap")
"""The kinds that are over when they are found, though they may end with a sensor's last reading."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a sensor.

    Attributes:
        event_id: Names it for good.
        sensor_name: The sensor.
        kind: One of ``kinds.KINDS``.
        start: Its first reading, or the last one before a gap; Europe/Berlin.
        end: Its last reading, or the first one after a gap.
        n_readings: How many readings belong to it.
        peak_score: How rare it is: as a Gaussian reading so many standard deviations off.
        mean_residual: How far its readings lie above what was expected on average; None for a gap.
        incident_id: What it shares with the events of other sensors that belong to it.
        annotation: What a person has said about it: maintenance, false_alarm or confirmed; None for nothing.
        ongoing: It lasts until the sensor's last reading.
    """

    event_id: str
    sensor_name: str
    kind: str
    start: datetime
    end: datetime
    n_readings: int
    peak_score: float
    mean_residual: float | None
    incident_id: str
    annotation: str | None = None
    ongoing: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is to tell of.

    Attributes:
        clock: The last reading of all sensors, which is the data's own clock; None where there is none.
        events: Those that ended within the last 30 days of it.
        reasonings: Why the readings of each sensor were judged as they were, by name.
    """

    clock: datetime | None = None
    events: tuple[Event, ...] = ()
    reasonings: dict[str, str] = field(default_factory=dict)


def read_events(connection: duckdb.DuckDBPyConnection) -> Findings:
    """Read the latest events.

    Args:
        connection: As ``connect`` returns it.
    """
    ((clock,),) = connection.execute("SELECT epoch_us(max(timestamp)) FROM last_readings").fetchall()
    if clock is None:
        return Findings()
    rows = connection.sql(
        f"""
        SELECT event_id, sensor_name, kind, epoch_us(events.start) AS start, epoch_us(events."end") AS "end",
            n_readings, peak_score, mean_residual, coalesce(incident_id, event_id) AS incident_id, annotation,
            kind NOT IN {_MOMENTARY} AND coalesce(events."end" >= timestamp, false) AS ongoing
        FROM events LEFT JOIN last_readings USING (sensor_name)
        WHERE events."end" >= make_timestamptz($clock) - to_days($days)
        ORDER BY peak_score DESC, sensor_name, start
        """,
        params={"clock": clock, "days": KEPT.days},
    ).to_arrow_table()
    moments = ("start", "end")
    events = (Event(**row | {name: from_instant(row[name]) for name in moments}) for row in rows.to_pylist())
    reasonings = connection.sql("SELECT sensor_name, reasoning FROM sensor_models").fetchall()
    return Findings(from_instant(clock), tuple(events), dict(reasonings))
