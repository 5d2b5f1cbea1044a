"""Readings summed up by Berlin's clock, against pandas."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_pipeline import get_measurements
from iot_pipeline.warehouse.buckets import SUMMARY, Every, bucket_starts, summarize

OFFSETS: dict[str, str] = {"15min": "15min", "1h": "1h", "1d": "D", "1w": "W-MON", "1mo": "MS"}
CLOCK_CHANGES = (datetime(2013, 3, 31, 1, tzinfo=UTC), datetime(2013, 10, 27, 1, tzinfo=UTC))
EVERY = st.sampled_from(get_args(Every))


def second_near(change: datetime, minutes: int) -> int:
    return int(change.timestamp()) + minutes * 60


readings = st.lists(
    st.tuples(
        st.builds(second_near, st.sampled_from(CLOCK_CHANGES), st.integers(-48 * 60, 48 * 60)),
        st.floats(-1e6, 1e6),
    ),
    min_size=1,
    max_size=60,
)


def with_pandas(instants: Any, values: Any, every: str) -> pd.DataFrame:
    """Sum up the obvious way, and leave out the buckets without readings."""
    index = pd.to_datetime(instants, unit="us", utc=True).tz_convert("Europe/Berlin").as_unit("us")
    resampled = pd.Series(values, index).resample(OFFSETS[every], label="left", closed="left")
    summary = resampled.agg(["size", "mean", "min", "max", "first", "last"]).rename(columns={"size": "n"})
    return summary[summary["n"] > 0]


@given(rows=readings, every=EVERY)
@settings(deadline=None)
def test_buckets_around_both_changes_of_the_clock_are_those_of_pandas(
    rows: list[tuple[int, float]], every: Every
) -> None:
    seconds, values = zip(*sorted(rows), strict=True)
    instants = np.array(seconds, np.int64) * 1_000_000
    starts, summary = summarize(instants, np.array(values), every)
    expected = with_pandas(instants, values, every)
    assert starts.tolist() == expected.index.asi8.tolist()  # type: ignore[attr-defined]
    for name in SUMMARY:
        np.testing.assert_allclose(summary[name], expected[name], rtol=1e-9, atol=1e-6)


@given(rows=readings, every=EVERY)
@settings(deadline=None)
def test_the_buckets_count_every_reading_once_and_their_mean_lies_between_min_and_max(
    rows: list[tuple[int, float]], every: Every
) -> None:
    seconds, values = zip(*sorted(rows), strict=True)
    _, summary = summarize(np.array(seconds, np.int64) * 1_000_000, np.array(values), every)
    assert summary["n"].sum() == len(rows)
    assert (summary["min"] <= summary["mean"]).all()
    assert (summary["mean"] <= summary["max"]).all()


def test_the_mean_of_enormous_error_values_is_finite() -> None:
    _, summary = summarize(np.array([0, 1, 2]), np.full(3, 1.7e308), "1h")
    assert summary["mean"] == [1.7e308]


@pytest.mark.parametrize(("day", "hours"), [("2013-03-31", 23), ("2013-10-27", 25), ("2013-10-28", 24)])
def test_a_day_of_berlin_has_as_many_hours_as_its_clock_shows(day: str, hours: int) -> None:
    first, last = (
        int((pd.Timestamp(day, tz="Europe/Berlin") + pd.DateOffset(days=n)).timestamp()) for n in (-1, 2)
    )
    hourly = np.arange(first, last, 3600, dtype=np.int64) * 1_000_000
    starts, counts = np.unique(bucket_starts(hourly, "1d"), return_counts=True)
    midnight = int(pd.Timestamp(day, tz="Europe/Berlin").timestamp()) * 1_000_000
    assert dict(zip(starts.tolist(), counts.tolist(), strict=True))[midnight] == hours


@pytest.mark.parametrize("every", get_args(Every))
def test_the_buckets_of_a_warehouse_are_those_of_its_readings(sample_warehouse: Path, every: Every) -> None:
    raw = get_measurements("sensor_00003", warehouse=sample_warehouse)
    found = get_measurements("sensor_00003", every=every, warehouse=sample_warehouse)
    instants = raw["timestamp"].dt.tz_convert("UTC").astype("int64").to_numpy()
    expected = with_pandas(instants, raw["sensor_value"].to_numpy(), every)
    assert list(found.columns) == ["timestamp", *SUMMARY]
    assert found["timestamp"].tolist() == expected.index.tolist()
    assert found["n"].sum() == len(raw)
    np.testing.assert_allclose(found[list(SUMMARY)], expected[list(SUMMARY)])


def test_several_sensors_are_summed_up_one_after_another(sample_warehouse: Path) -> None:
    names = ["sensor_00007", "sensor_00003"]
    found = get_measurements(names, "2013-10-20", "2013-11-01", every="1d", warehouse=sample_warehouse)
    for name in names:
        alone = get_measurements(name, "2013-10-20", "2013-11-01", every="1d", warehouse=sample_warehouse)
        rows = found[found["sensor_name"] == name].drop(columns="sensor_name").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone)


def test_buckets_have_the_same_types_in_every_kind_of_table_and_without_rows(sample_warehouse: Path) -> None:
    for start in ("2013-10-05", "2014-01-01"):
        options: Any = {"every": "1h", "warehouse": sample_warehouse}
        frame = get_measurements(["sensor_00003"], start, **options)
        assert frame.dtypes.astype(str).to_dict() == {
            "sensor_name": "str",
            "timestamp": "datetime64[us, Europe/Berlin]",
            "n": "int64",
            **dict.fromkeys(SUMMARY[1:], "float64"),
        }
        polars = get_measurements(["sensor_00003"], start, as_="polars", **options)
        assert polars.schema == {
            "sensor_name": pl.String,
            "timestamp": pl.Datetime("us", "Europe/Berlin"),
            "n": pl.Int64,
            **dict.fromkeys(SUMMARY[1:], pl.Float64),
        }
        assert len(polars) == len(frame)


def test_buckets_that_there_are_not_are_an_error_that_names_those_there_are(sample_warehouse: Path) -> None:
    with pytest.raises(ValueError, match="every must be one of 15min, 1h, 1d, 1w, 1mo, not '2h'"):
        get_measurements("sensor_00003", every="2h", warehouse=sample_warehouse)  # type: ignore[call-overload]
