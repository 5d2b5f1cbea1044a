"""The state of a warehouse: read once, kept until something newer is committed."""

from collections import Counter
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from iot_pipeline import connect, get_measurements
from iot_pipeline.anomalies import flag_anomalies
from iot_pipeline.ingest import load_mapping
from iot_pipeline.warehouse import open_warehouse, state
from iot_pipeline.warehouse.state import read_state
from iot_pipeline_tests.conftest import SENSOR, Bucket, csv_of, row


@pytest.fixture
def loaded(bucket: Bucket) -> Bucket:
    write_mapping(bucket, n_sensors=3)
    bucket.write("a.csv", *(row(f"2013-01-{day:02} 12:00") for day in range(1, 25)), "refused")
    bucket.load()
    flag_anomalies(warehouse=bucket.warehouse)
    return bucket


def write_mapping(bucket: Bucket, n_sensors: int) -> None:
    lines = [f"sensor_{n};{n:08}{SENSOR[8:]}" for n in range(1, n_sensors)]
    header = "sensor_name;sensor_uuid"
    (bucket.source / "mapping.csv").write_bytes(csv_of(f"first;{SENSOR}", *lines, header=header))
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)


def ask(bucket: Bucket) -> int:
    return len(get_measurements("first", "2013-01-01", "2013-02-01", warehouse=bucket.warehouse))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often tables are opened and their logs walked through."""
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        function = getattr(DeltaTable, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(DeltaTable, name, counted)

    count("__init__")
    count("get_add_actions")
    return counts


def test_the_first_question_opens_the_two_tables_it_needs_and_walks_each_log_once(
    loaded: Bucket, opened: Counter[str]
) -> None:
    state._states.clear()
    assert ask(loaded) == 24
    assert opened == {"__init__": 2, "get_add_actions": 2}


def test_a_later_question_or_connection_opens_no_table(loaded: Bucket, opened: Counter[str]) -> None:
    ask(loaded)
    connect(loaded.warehouse).close()
    opened.clear()
    assert ask(loaded) == 24
    with connect(loaded.warehouse) as connection:
        assert connection.execute("SELECT sensor_name FROM sensor_models").fetchall() == [("first",)]
    assert not opened


@pytest.mark.system
def test_a_connection_sees_a_judgement_of_the_same_session(loaded: Bucket) -> None:
    assert loaded.sql("SELECT n_points FROM sensor_models") == [(24,)]
    loaded.write("b.csv", row("2013-01-25 12:00"))
    loaded.load()
    assert loaded.sql("SELECT n_points FROM sensor_models") == [(24,)]
    flag_anomalies(warehouse=loaded.warehouse)
    assert loaded.sql("SELECT n_points FROM sensor_models") == [(25,)]


def test_a_state_stays_what_it_was_when_a_load_commits(loaded: Bucket) -> None:
    warehouse = open_warehouse(loaded.warehouse)
    before = read_state(warehouse)
    loaded.write("b.csv", row("2013-01-25 12:00"))
    loaded.load()
    after = read_state(warehouse)
    assert (before.n_readings, after.n_readings) == (24, 25)
    assert before.timeseries.version.number < after.timeseries.version.number
    assert read_state(warehouse) is after


class Statements:
    """A connection that counts what is sent to it."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:")
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        self.count += 1
        return getattr(self.connection, name)


def test_a_connection_takes_no_more_statements_for_many_sensors_than_for_few(loaded: Bucket) -> None:
    counts = []
    for n_sensors in (3, 2_000):
        write_mapping(loaded, n_sensors)
        statements: Any = Statements()
        connect(loaded.warehouse, connection=statements)
        assert statements.connection.execute("SELECT count(*) FROM sensors").fetchall() == [(n_sensors,)]
        counts.append(statements.count)
    assert counts[1] <= counts[0]
