"""A sensor's readings, from Python and SQL, against what the CSV files say."""

import csv
import inspect
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_pipeline import connect, get_measurements
from iot_pipeline.errors import ConfigurationError, UnknownSensorError, WarehouseError, WarehouseNotReadyError
from iot_pipeline.ingest import load_mapping, load_timeseries
from iot_pipeline.warehouse import query, views
from iot_pipeline.warehouse.state import State, read_state
from iot_pipeline_tests.conftest import SAMPLE, SENSOR, Bucket, row

BERLIN = ZoneInfo("Europe/Berlin")
SENSORS = [f"sensor_{number:05}" for number in range(12)]


@cache
def readings_of_csv_files() -> dict[str, list[tuple[datetime, float]]]:
    """Read the sample bucket row by row, the obvious way."""
    with (SAMPLE / "mapping" / "mapping.csv").open() as file:
        names = {line["sensor_uuid"]: line["sensor_name"] for line in csv.DictReader(file, delimiter=";")}
    readings: dict[str, list[tuple[datetime, float]]] = {name: [] for name in names.values()}
    for path in SAMPLE.glob("timeseries/**/*.csv"):
        fold, last = 0, datetime.min  # noqa: DTZ901 - wall time
        with path.open() as file:
            for line in csv.DictReader(file, delimiter=";"):
                moment = datetime.fromisoformat(line["timestamp"])
                if moment.tzinfo is None:
                    if moment < last:
                        fold = 1  # the only step back in a file is the repeated hour
                    last = moment
                    moment = moment.replace(tzinfo=BERLIN, fold=fold)
                readings[names[line["sensor_uuid"]]].append(
                    (moment.astimezone(UTC), float(line["sensor_value"]))
                )
    return readings


def pairs(rows: pd.DataFrame) -> list[tuple[datetime, float]]:
    moments = rows["timestamp"].dt.tz_convert("UTC").dt.to_pydatetime()
    return list(zip(moments, rows["sensor_value"].tolist(), strict=True))


@given(
    sensor=st.sampled_from(SENSORS),
    ends=st.lists(
        st.datetimes(
            datetime(2013, 9, 25), datetime(2013, 11, 10), timezones=st.just(BERLIN), allow_imaginary=False
        ),
        min_size=2,
        max_size=2,
    ),
)
@settings(deadline=None)
def test_a_query_returns_what_a_filter_over_the_csv_files_does(
    sample_warehouse: Path, sensor: str, ends: list[datetime]
) -> None:
    start, end = sorted(ends, key=lambda moment: moment.timestamp())
    expected = sorted(
        reading
        for reading in readings_of_csv_files()[sensor]
        if start.astimezone(UTC) <= reading[0] <= end.astimezone(UTC)
    )
    assert pairs(get_measurements(sensor, start, end, warehouse=sample_warehouse)) == expected


def test_both_ends_are_included(sample_warehouse: Path) -> None:
    moments = sorted(moment for moment, _ in readings_of_csv_files()["sensor_00003"])
    rows = get_measurements("sensor_00003", moments[10], moments[20], warehouse=sample_warehouse)
    assert [rows["timestamp"].iloc[0], rows["timestamp"].iloc[-1]] == [moments[10], moments[20]]
    assert len(rows) == 11


def test_the_columns_have_their_types_with_and_without_rows(sample_warehouse: Path) -> None:
    for start, end in (("2013-10-05", "2013-10-06"), ("1999-01-01", "1999-01-02")):
        rows = get_measurements("sensor_00003", start, end, warehouse=sample_warehouse)
        assert rows.dtypes.to_dict() == {
            "timestamp": pd.DatetimeTZDtype("us", BERLIN),
            "sensor_value": np.dtype("float64"),
        }


def test_a_table_of_arrow_or_polars_holds_the_same(sample_warehouse: Path) -> None:
    for end in ("2013-10-06", "2013-10-04T00:00:01"):
        frame = get_measurements("sensor_00003", "2013-10-04", end, warehouse=sample_warehouse)
        table = get_measurements("sensor_00003", "2013-10-04", end, as_="arrow", warehouse=sample_warehouse)
        polars = get_measurements("sensor_00003", "2013-10-04", end, as_="polars", warehouse=sample_warehouse)
        assert table.schema == pa.schema(
            [("timestamp", pa.timestamp("us", "Europe/Berlin")), ("sensor_value", pa.float64())]
        )
        assert polars.schema == {"timestamp": pl.Datetime("us", "Europe/Berlin"), "sensor_value": pl.Float64}
        assert table["sensor_value"].to_pylist() == frame["sensor_value"].tolist()
        assert polars["timestamp"].to_list() == table["timestamp"].to_pylist() == frame["timestamp"].tolist()


def test_several_sensors_follow_one_another_in_the_order_of_their_names_in_the_call(
    sample_warehouse: Path,
) -> None:
    names = ("sensor_00007", "sensor_00003", "sensor_00007")
    rows = get_measurements(names, "2013-10-05", "2013-10-06", warehouse=sample_warehouse)
    assert list(rows.columns) == ["sensor_name", "timestamp", "sensor_value"]
    assert list(dict.fromkeys(rows["sensor_name"])) == ["sensor_00007", "sensor_00003"]
    for name in names:
        alone = get_measurements(name, "2013-10-05", "2013-10-06", warehouse=sample_warehouse)
        of_name = rows[rows["sensor_name"] == name].drop(columns="sensor_name").reset_index(drop=True)
        pd.testing.assert_frame_equal(of_name, alone)


def test_more_sensors_than_are_read_at_once_hold_what_each_one_does(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = get_measurements(SENSORS, warehouse=sample_warehouse)
    monkeypatch.setattr(query, "_BATCH_SENSORS", 5)
    pd.testing.assert_frame_equal(get_measurements(SENSORS, warehouse=sample_warehouse), expected)
    assert len(expected) == sum(map(len, readings_of_csv_files().values()))


def test_no_sensors_are_an_empty_table_of_the_same_types(sample_warehouse: Path) -> None:
    none = get_measurements([], warehouse=sample_warehouse)
    some = get_measurements(SENSORS[:2], "1999-01-01", "1999-01-02", warehouse=sample_warehouse)
    pd.testing.assert_frame_equal(none, some)
    assert none.dtypes.astype(str).to_dict() == {
        "sensor_name": "str",
        "timestamp": "datetime64[us, Europe/Berlin]",
        "sensor_value": "float64",
    }


def test_one_unknown_sensor_among_several_is_named(sample_warehouse: Path) -> None:
    with pytest.raises(UnknownSensorError, match="there is no sensor 'sensor_0011'"):
        get_measurements(["sensor_00003", "sensor_0011"], warehouse=sample_warehouse)


def test_a_range_without_an_end_goes_to_the_last_reading(sample_warehouse: Path) -> None:
    all_readings = sorted(readings_of_csv_files()["sensor_00003"])
    assert pairs(get_measurements("sensor_00003", warehouse=sample_warehouse)) == all_readings
    noon = datetime(2013, 10, 20, 12, tzinfo=UTC)
    after = get_measurements("sensor_00003", noon, warehouse=sample_warehouse)
    before = get_measurements("sensor_00003", None, noon, warehouse=sample_warehouse)
    assert pairs(before) + pairs(after) == all_readings


def test_another_kind_of_table_is_an_error(sample_warehouse: Path) -> None:
    with pytest.raises(ValueError, match="as_ must be"):
        get_measurements("sensor_00003", "2013", "2014", as_="excel", warehouse=sample_warehouse)  # type: ignore[call-overload]


def test_a_call_survives_that_the_files_it_knew_were_deleted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    write_mapping(bucket, first=SENSOR)
    bucket.write("a.csv", row("2013-01-01 12:00"))
    bucket.load()
    load_meanwhile(bucket, monkeypatch, query)
    rows = get_measurements("first", "2013-01-01", "2013-01-02", warehouse=bucket.warehouse)
    assert len(rows) == 2


def test_a_connection_is_opened_although_the_files_it_knew_were_deleted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    bucket.write("a.csv", row("2013-01-01 12:00"), "refused")
    bucket.load()
    load_meanwhile(bucket, monkeypatch, views)
    assert bucket.sql("SELECT count(*) FROM measurements") == [(2,)]
    assert bucket.sql("SELECT count(*) FROM rejected_rows") == [(1,)]


def load_meanwhile(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, reader: ModuleType) -> None:
    """Let a load commit and delete the files of a state just after a reader has been given it."""
    states: list[State] = []

    def read(*arguments: Any, **options: Any) -> State:
        states.append(read_state(*arguments, **options))
        if len(states) == 1:
            bucket.write("b.csv", row("2013-01-01 13:00"))
            bucket.load()
        return states[-1]

    monkeypatch.setattr(reader, "read_state", read)


@pytest.mark.parametrize(
    "start",
    [
        "2013-10-05",
        "2013-10-05T00:00",
        "2013-10-04T22:00:00Z",
        date(2013, 10, 5),
        datetime(2013, 10, 5),
        datetime(2013, 10, 4, 22, tzinfo=UTC),
        pd.Timestamp("2013-10-05"),
        pd.Timestamp("2013-10-05", tz="Europe/Berlin"),
    ],
    ids=repr,
)
def test_a_time_may_be_given_in_any_of_these_ways(sample_warehouse: Path, start: Any) -> None:
    rows = get_measurements("sensor_00003", start, "2013-10-06", warehouse=sample_warehouse)
    expected = get_measurements(
        "sensor_00003", "2013-10-05T00:00+02:00", "2013-10-06", warehouse=sample_warehouse
    )
    pd.testing.assert_frame_equal(rows, expected)


def test_a_day_may_be_given_by_how_long_ago_it_was(sample_warehouse: Path) -> None:
    rows, everything = (
        get_measurements("sensor_00003", start, "yesterday", warehouse=sample_warehouse)
        for start in ("99999 days ago", None)
    )
    pd.testing.assert_frame_equal(rows, everything)
    assert get_measurements("sensor_00003", "yesterday", "today", warehouse=sample_warehouse).empty


@pytest.mark.parametrize("start", ["soon", "", "2013", 5, pd.NaT], ids=repr)
def test_an_unreadable_time_is_an_error_that_shows_how_to_write_it(
    sample_warehouse: Path, start: Any
) -> None:
    with pytest.raises(ValueError, match="write it like 2013-01-31"):
        get_measurements("sensor_00003", start, "2013-10-06", warehouse=sample_warehouse)


def test_a_start_after_the_end_is_an_error(sample_warehouse: Path) -> None:
    with pytest.raises(ValueError, match="is after end"):
        get_measurements("sensor_00003", "2013-10-07", "2013-10-06", warehouse=sample_warehouse)


def test_an_unknown_sensor_is_a_lookup_error_that_names_near_names(sample_warehouse: Path) -> None:
    with pytest.raises(LookupError, match="did you mean sensor_00011") as caught:
        get_measurements("sensor_0011", "2013-10-05", "2013-10-06", warehouse=sample_warehouse)
    assert isinstance(caught.value, UnknownSensorError)


def test_polars_that_is_not_installed_is_one_line_that_says_what_to_run(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'iot-pipeline\[polars\]'"):
        get_measurements("sensor_00000", "2013-10-05", "2013-10-06", as_="polars", warehouse=sample_warehouse)


def test_a_sensor_name_with_sql_in_it_is_only_a_name(sample_warehouse: Path) -> None:
    with pytest.raises(UnknownSensorError):
        get_measurements("' OR 1=1 --", "2013-10-05", "2013-10-06", warehouse=sample_warehouse)


def test_a_warehouse_without_a_load_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WarehouseNotReadyError, match="run: iot-pipeline load"):
        get_measurements("sensor_00003", "2013-10-05", "2013-10-06", warehouse=tmp_path)
    with pytest.raises(WarehouseNotReadyError, match="run: iot-pipeline load"):
        connect(tmp_path)


def write_mapping(bucket: Bucket, **sensors: str) -> None:
    lines = ["sensor_name;sensor_uuid", *(f"{name};{uuid}" for name, uuid in sensors.items())]
    path = bucket.source / "mapping.csv"
    path.write_text("\n".join(lines))
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)


def test_the_next_call_sees_a_load_of_the_same_session(bucket: Bucket) -> None:
    write_mapping(bucket, first=SENSOR)
    for n_rows in (1, 2):
        bucket.write("a.csv", *(row(f"2013-01-01 12:0{n}") for n in range(n_rows)))
        bucket.load()
        rows = get_measurements("first", "2013-01-01", "2013-01-02", warehouse=bucket.warehouse)
        assert len(rows) == n_rows


def test_the_next_call_sees_a_new_name_of_a_sensor(bucket: Bucket) -> None:
    bucket.write("a.csv", row("2013-01-01 12:00"))
    bucket.load()
    for name in ("old", "new"):
        write_mapping(bucket, **{name: SENSOR})
        assert len(get_measurements(name, "2013-01-01", "2013-01-02", warehouse=bucket.warehouse)) == 1
    with pytest.raises(UnknownSensorError):
        get_measurements("old", "2013-01-01", "2013-01-02", warehouse=bucket.warehouse)


def test_the_next_call_sees_a_warehouse_that_was_deleted_and_made_anew(bucket: Bucket) -> None:
    for n_rows in (3, 1):
        bucket.write("a.csv", *(row(f"2013-01-01 12:0{n}") for n in range(n_rows)))
        bucket.load()
        write_mapping(bucket, first=SENSOR)
        rows = get_measurements("first", "2013-01-01", "2013-01-02", warehouse=bucket.warehouse)
        assert len(rows) == n_rows
        shutil.rmtree(bucket.warehouse)


def test_a_connection_keeps_to_the_version_it_was_opened_on(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    with connect(bucket.warehouse) as connection:
        bucket.write("b.csv", row("2013-01-02 12:00"))
        bucket.load()
        assert connection.execute("SELECT count(*) FROM measurements").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM source_files").fetchall() == [(1,)]


def test_a_connection_shows_the_rejected_rows_of_its_own_version(bucket: Bucket) -> None:
    for n_refused in (1, 2, 0):
        bucket.write("a.csv", row(), *["refused"] * n_refused)
        bucket.load()
        assert bucket.sql("SELECT count(*) FROM rejected_rows") == [(n_refused,)]


@pytest.mark.parametrize("place", ["a directory", pytest.param("S3", marks=pytest.mark.system)])
def test_a_cursor_has_the_settings_of_its_connection(
    bucket: Bucket, request: pytest.FixtureRequest, place: str
) -> None:
    if place == "S3":
        bucket = replace(bucket, warehouse=request.getfixturevalue("s3_folder"))
    bucket.write("a.csv", row())
    bucket.load()
    # A bar of progress is DuckDB's own affair.
    settings = "SELECT name, value FROM duckdb_settings() WHERE name NOT LIKE '%progress%' ORDER BY name"
    with connect(bucket.warehouse) as connection, connection.cursor() as cursor:
        assert cursor.execute(settings).fetchall() == connection.execute(settings).fetchall()


def test_readings_of_sensors_that_the_mapping_lacks_have_no_name(bucket: Bucket) -> None:
    bucket.write("a.csv", row())
    bucket.load()
    assert bucket.sql("SELECT sensor_name, sensor_uuid FROM measurements") == [(None, SENSOR)]


def test_a_count_of_all_readings_reads_no_column(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        ((_, plan),) = connection.execute("EXPLAIN SELECT count(*) FROM measurements").fetchall()
        ((count,),) = connection.execute("SELECT count(*) FROM measurements").fetchall()
    assert "Join" not in plan
    assert "sensor_uuid" not in plan
    assert count == sum(map(len, readings_of_csv_files().values()))


def test_the_last_reading_of_each_sensor_is_the_one_that_a_scan_of_everything_finds(bucket: Bucket) -> None:
    silent, talking = SENSOR, "22222222-1111-4111-8111-111111111111"
    write_mapping(bucket, talks=talking)
    bucket.write(
        "a.csv", row("2013-01-05 12:00", uuid=silent, value=1), row("2013-01-06 12:00", uuid=talking)
    )
    bucket.write("b.csv", row("2013-01-07 12:00", uuid=silent, value=2))
    bucket.write(
        "c.csv", *(row(f"2013-0{month}-01 12:00", uuid=talking, value=month) for month in range(2, 7))
    )
    bucket.load()
    assert bucket.sql(
        "SELECT sensor_name, sensor_uuid, timestamp::VARCHAR, sensor_value FROM last_readings ORDER BY ALL"
    ) == [
        ("talks", talking, "2013-06-01 12:00:00+02", 6.0),
        (None, silent, "2013-01-07 12:00:00+01", 2.0),
    ]


def test_the_last_readings_are_found_in_the_newest_months(sample_warehouse: Path) -> None:
    ends = {name: max(readings) for name, readings in readings_of_csv_files().items()}
    with connect(sample_warehouse) as connection:
        rows = connection.execute(
            "SELECT sensor_name, epoch_us(timestamp), sensor_value FROM last_readings"
        ).fetchall()
    assert {name: reading for name, *reading in rows} == {
        name: [round(moment.timestamp() * 1e6), value] for name, (moment, value) in ends.items()
    }


def test_help_names_each_view_and_its_columns_and_there_is_no_other(sample_warehouse: Path) -> None:
    listed = dict(re.findall(r"^ {4}(\w+)\(([^)]*)\)", inspect.getdoc(connect) or "", re.MULTILINE))
    with connect(sample_warehouse) as connection:
        views = connection.execute(
            "SELECT name, array_to_string(column_names, ', ') FROM (SHOW ALL TABLES)"
        ).fetchall()
    assert {name: " ".join(columns.split()) for name, columns in listed.items()} == dict(views)


def test_sql_by_name_and_time_gives_what_get_measurements_does(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        rows = connection.execute("""
            SELECT epoch_us(timestamp), sensor_value FROM measurements
            WHERE sensor_name = 'sensor_00003' AND timestamp BETWEEN '2013-10-20' AND '2013-11-01'
            ORDER BY ALL
        """).fetchall()
    expected = get_measurements("sensor_00003", "2013-10-20", "2013-11-01", warehouse=sample_warehouse)
    instants = expected["timestamp"].dt.tz_convert("UTC").astype("int64").tolist()
    assert rows == list(zip(instants, expected["sensor_value"].tolist(), strict=True))


def test_all_views_can_be_queried_before_anything_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    load_timeseries(source=str(tmp_path / "source"), warehouse=tmp_path / "warehouse")
    with connect(tmp_path / "warehouse") as connection:
        for view in (
            "sensors",
            "measurements",
            "source_files",
            "rejected_rows",
            "anomalies",
            "sensor_models",
        ):
            assert connection.execute(f"SELECT count(*) FROM {view}").fetchall() == [(0,)]


def test_times_are_shown_in_berlin_time(sample_warehouse: Path) -> None:
    with connect(sample_warehouse) as connection:
        (text,) = connection.execute("SELECT max(timestamp)::VARCHAR FROM measurements").fetchall()[0]
    assert text.endswith("+01")


def test_a_query_spans_months_and_the_change_of_the_clock(sample_warehouse: Path) -> None:
    rows = get_measurements("sensor_00003", "2013-10-20", "2013-11-02", warehouse=sample_warehouse)
    steps = rows["timestamp"].diff().dropna()
    assert {moment.utcoffset() for moment in rows["timestamp"]} == {timedelta(hours=1), timedelta(hours=2)}
    assert steps.min() >= pd.Timedelta(0)
    assert set(rows["timestamp"].dt.month) == {10, 11}


@pytest.mark.system
def test_threads_may_query_while_loads_commit(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOT_GRACE_DAYS", "0")
    write_mapping(bucket, first=SENSOR)
    bucket.write("a.csv", row("2013-01-01 12:00", value=0))
    bucket.load()
    stop = Event()

    def count_until_stopped(_: int) -> list[int]:
        counts = []
        while not stop.is_set():
            rows = get_measurements("first", "2013-01-01", "2014-01-01", warehouse=bucket.warehouse)
            # Every load adds a month; a state that mixes two would miss one in between.
            assert rows["sensor_value"].tolist() == list(range(len(rows)))
            counts.append(len(rows))
        return counts

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(count_until_stopped, number) for number in range(4)]
        try:
            for month in range(2, 12):
                bucket.write(f"{month}.csv", row(f"2013-{month:02}-01 12:00", value=month - 1))
                bucket.load()
        finally:
            stop.set()
        for reader in readers:
            counts = reader.result()
            assert counts == sorted(counts)
            assert len(set(counts)) > 1


@pytest.mark.system
def test_a_process_that_was_forked_after_a_query_may_query(sample_warehouse: Path) -> None:
    script = (
        "import os, sys\n"
        "from iot_pipeline import get_measurements\n"
        "def count():\n"
        "    end = '2013-10-20'\n"
        "    return len(get_measurements('sensor_00003', '2013-10-05', end, warehouse=sys.argv[1]))\n"
        "before = count()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if count() == before else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(sample_warehouse)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["mapping.sqlite", "source_files/_delta_log/00000000000000000000.json"])
def test_a_broken_file_is_named_in_one_line(name: str, tmp_path: Path, sample_warehouse: Path) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    (warehouse / name).write_text("something else")
    for ask in (
        connect,
        lambda warehouse: get_measurements("sensor_00000", "2013-10-05", "2013-10-06", warehouse=warehouse),
    ):
        with pytest.raises(WarehouseError, match=f"can't read .*{Path(name).parts[0]}") as caught:
            ask(warehouse)
        assert "\n" not in str(caught.value)


def test_a_file_that_was_deleted_by_hand_is_named_in_one_line(tmp_path: Path, sample_warehouse: Path) -> None:
    warehouse = shutil.copytree(sample_warehouse, tmp_path / "warehouse")
    for file in (warehouse / "timeseries").glob("month=*/*"):
        file.unlink()
    with pytest.raises(WarehouseError, match=r"month=.*parquet") as caught:
        connect(warehouse)
    assert "\n" not in str(caught.value)
