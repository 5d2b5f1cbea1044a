"""Events and the most severe sensors, as the shell, the report and the tour find them."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from iot_pipeline import connect
from iot_pipeline.berlin import HOUR
from iot_pipeline.warehouse.events import find_events, rank_sensors
from iot_pipeline.warehouse.query import read_moment


@pytest.fixture
def connection(sample_warehouse: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(sample_warehouse) as connection:
        yield connection


@pytest.fixture
def views() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a connection with the views that are read, of three sensors without an event."""
    with duckdb.connect() as connection:
        connection.execute("""
            CREATE TABLE events (event_id VARCHAR, sensor_name VARCHAR, kind VARCHAR, start TIMESTAMPTZ,
                "end" TIMESTAMPTZ, n_readings BIGINT, peak_score DOUBLE, mean_residual DOUBLE,
                incident_id VARCHAR, annotation VARCHAR)
        """)
        connection.execute("""
            CREATE TABLE sensor_models AS
            SELECT unnest(['a', 'b', 'c']) AS sensor_name, 9 AS n_anomalies, 9 AS n_events
        """)
        yield connection


def add(
    connection: duckdb.DuckDBPyConnection,
    start: int,
    end: int | None = None,
    *,
    sensor: str = "a",
    score: float = 5.0,
    readings: int = 1,
    annotation: str | None = None,
) -> None:
    """Add an event between two hours."""
    connection.execute(
        """
        INSERT INTO events VALUES
            ('id', ?, 'burst', make_timestamptz(?), make_timestamptz(?), ?, ?, 50, 'id', ?)
        """,
        [sensor, start * HOUR, (end or start) * HOUR, readings, score, annotation],
    )


def found(relation: duckdb.DuckDBPyRelation, columns: str) -> list[tuple[object, ...]]:
    return relation.project(columns).fetchall()


def test_the_newest_event_comes_first_and_each_says_how_long_it_took(
    views: duckdb.DuckDBPyConnection,
) -> None:
    add(views, 1, 2)
    add(views, 8)
    columns = f'epoch_us(start) // {HOUR}, epoch_us("end") // {HOUR}, duration_h'
    assert found(find_events(views), columns) == [(8, 8, 0.0), (1, 2, 1.0)]


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [(None, None, [8, 1]), (3, None, [8]), (None, 3, [1]), (2, 8, [8, 1]), (3, 7, [])],
)
def test_a_window_of_time_keeps_the_events_that_reach_into_it(
    views: duckdb.DuckDBPyConnection, since: int | None, until: int | None, hours: list[int]
) -> None:
    add(views, 1, 2)
    add(views, 8)
    first, last = (None if hour is None else hour * HOUR for hour in (since, until))
    events = find_events(views, since=first, until=last)
    assert found(events, f"(epoch_us(start) // {HOUR})::INTEGER") == [(hour,) for hour in hours]


def test_sensors_are_ranked_by_the_sum_of_their_events_scores(views: duckdb.DuckDBPyConnection) -> None:
    add(views, 1, sensor="c", score=9.0)
    for hour, score in enumerate((5.0, 6.0)):
        add(views, hour, sensor="b", score=score)
    assert found(rank_sensors(views), "sensor_name, severity") == [("b", 11.0), ("c", 9.0), ("a", 0.0)]


def test_a_false_alarm_counts_neither_in_the_rank_of_a_sensor_nor_in_its_figures(
    views: duckdb.DuckDBPyConnection,
) -> None:
    add(views, 1, score=9.0, readings=4, annotation="false_alarm")
    add(views, 2, score=2.0, readings=3, annotation="confirmed")
    figures = found(rank_sensors(views), "sensor_name, severity, n_events, n_anomalies")
    assert figures[0] == ("a", 2.0, 1, 3)


def test_error_values_of_any_size_can_be_summed_up(views: duckdb.DuckDBPyConnection) -> None:
    for hour in range(3):
        add(views, hour, score=1.7e308)
    assert found(rank_sensors(views), "sensor_name")[0] == ("a",)


def test_events_of_the_sample_are_as_many_as_the_models_say(connection: duckdb.DuckDBPyConnection) -> None:
    events = found(find_events(connection), "sensor_name")
    counts = connection.execute("SELECT sum(n_events)::BIGINT FROM sensor_models").fetchall()
    assert [(len(events),)] == counts
    one = find_events(connection, sensor_name="sensor_00006", since=read_moment("2013-11-01"))
    assert found(one, "sensor_name, kind") == [("sensor_00006", "spike")]
