"""Events and sensors as frames."""

from datetime import date
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from iot_pipeline import get_anomalies, list_sensors
from iot_pipeline.berlin import read_day
from iot_pipeline.errors import UnknownSensorError, WarehouseNotReadyError


def test_anomalies_are_events_as_a_frame_with_the_newest_first(sample_warehouse: Path) -> None:
    events = get_anomalies(warehouse=sample_warehouse)
    assert len(events) == 15
    assert events["start"].is_monotonic_decreasing
    assert str(events["start"].dtype) == str(events["end"].dtype) == "datetime64[us, Europe/Berlin]"
    assert events["peak_score"].dtype == "float64"
    assert events["event_id"].is_unique


def test_anomalies_of_a_time_and_a_sensor_are_those_that_reach_into_it(sample_warehouse: Path) -> None:
    moment = pd.Timestamp("2013-10-16 18:00")
    events = get_anomalies(moment, moment, warehouse=sample_warehouse)
    assert set(events["sensor_name"]) == {"sensor_00001", "sensor_00005"}
    (event,) = get_anomalies(moment, moment, "sensor_00001", warehouse=sample_warehouse).to_dict("records")
    assert (event["kind"], event["n_readings"]) == ("burst", 20)


@pytest.mark.parametrize("function", [get_anomalies, list_sensors])
def test_every_kind_of_frame_holds_the_same(function: object, sample_warehouse: Path) -> None:
    frames = [function(as_=kind, warehouse=sample_warehouse) for kind in ("arrow", "polars", "pandas")]  # type: ignore[operator]
    assert [type(frame) for frame in frames] == [pa.Table, pl.DataFrame, pd.DataFrame]
    assert frames[1].to_dicts() == frames[0].to_pylist()
    assert len(frames[2]) == frames[0].num_rows
    with pytest.raises(ValueError, match="as_ must be"):
        function(as_="excel", warehouse=sample_warehouse)  # type: ignore[operator]


def test_nothing_found_is_an_empty_frame_of_the_same_types(sample_warehouse: Path) -> None:
    none = get_anomalies("yesterday", warehouse=sample_warehouse)
    assert none.empty
    assert none.dtypes.to_dict() == get_anomalies(warehouse=sample_warehouse).dtypes.to_dict()


def test_what_can_not_be_asked_says_so(sample_warehouse: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownSensorError, match="did you mean sensor_00003"):
        get_anomalies(sensor_name="sensor_3", warehouse=sample_warehouse)
    with pytest.raises(ValueError, match="start 2014-01-01 is after end 2013-01-01"):
        get_anomalies("2014-01-01", "2013-01-01", warehouse=sample_warehouse)
    for function in (get_anomalies, list_sensors):
        with pytest.raises(WarehouseNotReadyError, match="run: "):
            function(warehouse=tmp_path)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", date(2013, 3, 1)),
        (" Yesterday ", date(2013, 2, 28)),
        ("7 days ago", date(2013, 2, 22)),
        ("1  day ago", date(2013, 2, 28)),
        ("2013-02-01", None),
        ("days ago", None),
    ],
)
def test_a_day_can_be_said_in_words(text: str, day: date | None) -> None:
    assert read_day(text, date(2013, 3, 1)) == day


def test_every_sensor_is_listed_with_its_first_and_last_reading(sample_warehouse: Path) -> None:
    sensors = list_sensors(warehouse=sample_warehouse)
    assert list(sensors) == ["sensor_name", "sensor_uuid", "first", "last", "n_readings"]
    assert sensors["sensor_name"].is_monotonic_increasing
    assert (len(sensors), sensors["n_readings"].sum()) == (12, 35_626)
