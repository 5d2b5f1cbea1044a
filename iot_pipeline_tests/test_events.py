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
    """Return a connection with the views that events are found in, and a reading each hour from 0 to 9."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE sensors AS SELECT 'a' AS sensor_name, 'u' AS sensor_uuid")
        connection.execute(f"""
            CREATE TABLE readings AS SELECT 'u' AS sensor_uuid, make_timestamptz(h * {HOUR}) AS timestamp
            FROM range(10) t(h) WHERE h NOT BETWEEN 4 AND 6
        """)
        connection.execute("""
            CREATE TABLE anomalies (sensor_name VARCHAR, timestamp TIMESTAMPTZ, sensor_value DOUBLE,
                expected_value DOUBLE, score DOUBLE, kind VARCHAR, event_id BIGINT)
        """)
        connection.execute("CREATE TABLE sensor_models AS SELECT unnest(['a', 'b', 'c']) AS sensor_name")
        yield connection


def flag(
    connection: duckdb.DuckDBPyConnection,
    hour: int,
    *,
    sensor: str = "a",
    value: float = 150.0,
    score: float = 5.0,
    kind: str = "spike",
    event: int = 0,
) -> None:
    connection.execute(
        "INSERT INTO anomalies VALUES (?, make_timestamptz(?), ?, 100, ?, ?, ?)",
        [sensor, hour * HOUR, value, score, kind, event],
    )


def found(relation: duckdb.DuckDBPyRelation, columns: str) -> list[tuple[object, ...]]:
    return relation.project(columns).fetchall()


def test_readings_of_one_event_are_one_row_and_the_newest_event_comes_first(
    views: duckdb.DuckDBPyConnection,
) -> None:
    flag(views, 1, score=5.0, kind="burst")
    flag(views, 2, score=7.0, kind="burst", value=110.0)
    flag(views, 8, event=1)
    columns = f'kind, epoch_us(start) // {HOUR}, epoch_us("end") // {HOUR}, duration_h, n_readings'
    assert found(find_events(views), f"{columns}, peak_score, mean_residual") == [
        ("spike", 8, 8, 0.0, 1, 5.0, 50.0),
        ("burst", 1, 2, 1.0, 2, 7.0, 30.0),
    ]


def test_a_gap_lasts_from_the_last_reading_before_it(views: duckdb.DuckDBPyConnection) -> None:
    flag(views, 7, kind="gap")
    columns = f'epoch_us(start) // {HOUR}, epoch_us("end") // {HOUR}, duration_h, mean_residual'
    assert found(find_events(views), columns) == [(3, 7, 4.0, None)]


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [(None, None, [8, 1]), (3, None, [8]), (None, 3, [1]), (2, 8, [8, 1]), (3, 7, [])],
)
def test_a_window_of_time_keeps_the_events_that_reach_into_it(
    views: duckdb.DuckDBPyConnection, since: int | None, until: int | None, hours: list[int]
) -> None:
    flag(views, 1, kind="burst")
    flag(views, 2, kind="burst")
    flag(views, 8, event=1)
    first, last = (None if hour is None else hour * HOUR for hour in (since, until))
    events = find_events(views, since=first, until=last)
    assert found(events, f"(epoch_us(start) // {HOUR})::INTEGER") == [(hour,) for hour in hours]


def test_sensors_are_ranked_by_the_sum_of_their_events_scores(views: duckdb.DuckDBPyConnection) -> None:
    flag(views, 1, sensor="c", score=9.0)
    for event, score in enumerate((5.0, 6.0)):
        flag(views, event, sensor="b", score=score, event=event)
        flag(views, event + 2, sensor="b", score=1.0, event=event)
    assert found(rank_sensors(views), "sensor_name, severity") == [("b", 11.0), ("c", 9.0), ("a", 0.0)]


def test_error_values_of_any_size_can_be_summed_up(views: duckdb.DuckDBPyConnection) -> None:
    flag(views, 1, value=1.7976931348623157e308, score=1e308, kind="burst")
    flag(views, 2, value=1.7976931348623157e308, score=1e308, kind="burst")
    flag(views, 3, value=-1.7976931348623157e308, score=1.7e308, event=1)
    flag(views, 7, value=1e290, score=1.7e308, event=2)
    residuals = [residual for (residual,) in found(find_events(views), "mean_residual")]
    assert residuals == [1e290, -1.7976931348623157e308, 1.7976931348623157e308]
    assert found(rank_sensors(views), "sensor_name")[0] == ("a",)


def test_events_of_the_sample_are_as_many_as_the_models_say(connection: duckdb.DuckDBPyConnection) -> None:
    events = found(find_events(connection), "sensor_name")
    counts = connection.execute("SELECT sum(n_events)::BIGINT FROM sensor_models").fetchall()
    assert [(len(events),)] == counts
    one = find_events(connection, sensor_name="sensor_00006", since=read_moment("2013-11-01"))
    assert found(one, "sensor_name, kind") == [("sensor_00006", "spike")]
