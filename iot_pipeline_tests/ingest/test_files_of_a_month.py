"""How a month is cut into files, and that a query opens only the one that holds its sensor."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from iot_pipeline.ingest import load_mapping, month
from iot_pipeline.warehouse import open_warehouse
from iot_pipeline.warehouse.state import State, read_state
from iot_pipeline_tests.conftest import Bucket, row

SENSORS = [f"{digit * 8}-1111-4111-8111-111111111111" for digit in "0123456789"]


@pytest.fixture
def state(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> State:
    """Return the state of a warehouse with three readings of ten sensors each, in files of about five."""
    monkeypatch.setattr(month, "FILE_ROWS", 5)
    monkeypatch.setattr(month, "ROW_GROUP_ROWS", 2)
    bucket.write("a.csv", *(row(f"2013-01-0{day} 12:00", uuid=uuid) for day in (3, 1, 2) for uuid in SENSORS))
    bucket.load()
    bucket.write("b.csv", *(row(f"2013-02-0{day} 12:00", uuid=uuid) for day in (3, 1, 2) for uuid in SENSORS))
    bucket.load()
    (bucket.source / "mapping.csv").write_text(f"sensor_name;sensor_uuid\nfirst;{SENSORS[0]}\n")
    load_mapping(source=str(bucket.source), warehouse=bucket.warehouse)
    return read_state(open_warehouse(bucket.warehouse))


def paths_by_month(state: State) -> list[list[str]]:
    return [[file.url for file in files] for files in state.months.values()]


def sensors_in(path: str) -> list[str]:
    return list(pq.read_table(Path(path), partitioning=None)["sensor_uuid"].to_pylist())


def test_a_file_never_holds_a_part_of_a_sensor(state: State) -> None:
    for paths in paths_by_month(state):
        assert sorted(len(sensors_in(path)) for path in paths) == [6, 6, 6, 6, 6]
        assert dict.fromkeys(SENSORS, 3) == {
            uuid: sensors_in(path).count(uuid) for path in paths for uuid in set(sensors_in(path))
        }


def test_a_row_group_never_holds_a_part_of_a_sensor(state: State) -> None:
    for paths in paths_by_month(state):
        for path in paths:
            with pq.ParquetFile(path) as file:
                groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
            assert [set(group["sensor_uuid"].to_pylist()) for group in groups] == [
                {uuid} for uuid in dict.fromkeys(sensors_in(path))
            ]


def test_the_files_of_a_month_are_equally_large(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month, "FILE_ROWS", 4)
    bucket.write("a.csv", *(row("2013-01-01 12:00", uuid=uuid) for uuid in SENSORS))
    bucket.load()
    sizes = [file.n_rows for file in read_state(open_warehouse(bucket.warehouse)).timeseries.files]
    assert sorted(sizes) == [5, 5]


def test_months_in_the_layout_of_an_earlier_release_are_read_and_rewritten_when_touched(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(month, "FILE_ROWS", 1)
    for number in (1, 2):
        bucket.write(f"{number}.csv", *(row(f"2013-0{number}-01 12:00", uuid=uuid) for uuid in SENSORS))
    bucket.load()
    monkeypatch.undo()
    bucket.write("3.csv", row("2013-02-01 13:00", uuid=SENSORS[0]))
    bucket.load()
    months = read_state(open_warehouse(bucket.warehouse)).months
    assert {name: len(files) for name, files in months.items()} == {"2013-01": 10, "2013-02": 1}
    assert bucket.sql("SELECT month(timestamp), count(*) FROM measurements GROUP BY ALL ORDER BY ALL") == [
        (1, 10),
        (2, 11),
    ]


def test_a_file_is_sorted_by_sensor_and_time(state: State) -> None:
    for paths in paths_by_month(state):
        for path in paths:
            rows = pq.read_table(Path(path), partitioning=None).to_pylist()
            keys = [(reading["sensor_uuid"], reading["timestamp"]) for reading in rows]
            assert keys == sorted(keys)


@pytest.mark.parametrize("uuid", SENSORS)
def test_one_file_a_month_is_opened_for_a_sensor(state: State, uuid: str) -> None:
    paths = state.paths([uuid], "2013-01", "2013-02")
    assert len(paths) == 2
    assert all(uuid in sensors_in(path) for path in paths)
    assert state.paths([uuid], "2013-02", "2013-12") == paths[1:]


def test_no_file_is_opened_for_a_sensor_without_readings(state: State) -> None:
    assert state.paths(["ffffffff-1111-4111-8111-111111111111"]) == []


def test_the_files_of_several_sensors_are_those_that_hold_one_of_them(state: State) -> None:
    found = [sensors_in(path) for path in state.paths([SENSORS[7], SENSORS[3]])]
    assert len(found) == 4
    assert all({SENSORS[3], SENSORS[7]} & set(sensors) for sensors in found)
