"""What the times of a file mean, above all in the nights when the clock changes."""

import pytest

from iot_pipeline_tests.conftest import OTHER_SENSOR, SENSOR, Bucket, row

REPEATED_NIGHT = "2013-10-27"
MISSING_NIGHT = "2013-03-31"


def write_night(bucket: Bucket, night: str, *times: str, key: str = "data_0.csv") -> None:
    bucket.write(key, *(row(f"{night} {time}", value=i) for i, time in enumerate(times)))


def passes(bucket: Bucket) -> list[str]:
    """Return the times of the night in the order of the file, as Berlin's clock shows them."""
    rows = bucket.sql(
        "SELECT strftime(timestamp, '%H:%M%z') FROM measurements WHERE sensor_uuid = $uuid"
        " ORDER BY sensor_value",
        uuid=SENSOR,
    )
    return [time for (time,) in rows]


def test_a_naive_time_is_berlin_wall_time(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row("2013-01-01 12:00:00"), row("2013-07-01 12:00:00"))
    bucket.load()
    assert bucket.times() == ["2013-01-01 12:00+01", "2013-07-01 12:00+02"]


@pytest.mark.parametrize("time", ["12:00Z", "13:00+01", "13:00:00+0100", "07:30-04:30", "13:00:00.000"])
def test_an_offset_is_honoured_and_never_dropped(bucket: Bucket, time: str) -> None:
    bucket.write("data_0.csv", row(f"2013-01-01T{time}"))
    bucket.load()
    assert bucket.times() == ["2013-01-01 13:00+01"]


def test_fractions_of_a_second_are_kept(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row("1970-01-02 01:00:00.123456"), row("1970-01-02 00:00:01.5Z"))
    bucket.load()
    assert [instant % 10_000_000 for _, instant, _ in bucket.content()] == [123_456, 1_500_000]


def test_naive_and_aware_times_may_stand_in_one_file(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row("2013-01-01 12:00:00"), row("2013-01-01 12:10:00+01:00"))
    bucket.load()
    assert bucket.times() == ["2013-01-01 12:00+01", "2013-01-01 12:10+01"]


# ------------------------------------------------------------------ the repeated hour


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param(
            ["01:50", "02:10", "02:40", "02:05", "02:30", "03:10"],
            ["01:50+02", "02:10+02", "02:40+02", "02:05+01", "02:30+01", "03:10+01"],
            id="from the step back on the second pass",
        ),
        pytest.param(
            ["02:10", "02:40", "02:05"],
            ["02:10+02", "02:40+02", "02:05+01"],
            id="a step back and no row around the hour",
        ),
        pytest.param(
            ["02:10", "02:40", "03:00"],
            ["02:10+01", "02:40+01", "03:00+01"],
            id="no row before, rows after: the second pass",
        ),
        pytest.param(["01:50", "02:10", "02:40"], ["01:50+02", "02:10+02", "02:40+02"], id="rows before"),
        pytest.param(
            ["01:50", "02:10", "03:10"],
            ["01:50+02", "02:10+02", "03:10+01"],
            id="rows before and after without a step back: the first pass",
        ),
        pytest.param(["02:10", "02:40"], ["02:10+02", "02:40+02"], id="nothing else: the first pass"),
        pytest.param(
            ["02:10", "02:10", "02:40"],
            ["02:10+02", "02:10+02", "02:40+02"],
            id="the same time again is no step back",
        ),
        pytest.param(
            ["02:10+02:00", "02:20", "02:05+01:00", "02:30", "03:10"],
            ["02:10+02", "02:20+02", "02:05+01", "02:30+01", "03:10+01"],
            id="naive times between aware ones",
        ),
        pytest.param(
            ["01:50", "02:10", "02:20+01:00", "02:30"],
            ["01:50+02", "02:10+02", "02:20+01", "02:30+01"],
            id="an offset says that the second pass has begun",
        ),
        pytest.param(
            ["02:30+01:00", "02:30+02:00"], ["02:30+01", "02:30+02"], id="aware times are what they say"
        ),
    ],
)
def test_the_repeated_hour_is_told_apart_by_the_order_of_the_file(
    bucket: Bucket, times: list[str], expected: list[str]
) -> None:
    write_night(bucket, REPEATED_NIGHT, *times)
    bucket.load()
    assert passes(bucket) == expected


def test_the_order_of_one_file_says_nothing_about_another(bucket: Bucket) -> None:
    write_night(bucket, REPEATED_NIGHT, "01:50", "02:10", "02:50", key="data_0.csv")
    write_night(bucket, REPEATED_NIGHT, "02:20", "02:40", "03:10", key="data_1.csv")
    bucket.load()
    times = ["01:50+02", "02:10+02", "02:50+02", "02:20+01", "02:40+01", "03:10+01"]
    assert bucket.times() == [f"{REPEATED_NIGHT} {time}" for time in times]


def test_interleaved_sensors_share_the_step_back(bucket: Bucket) -> None:
    first = [row(f"{REPEATED_NIGHT} 02:{m:02}", (SENSOR, OTHER_SENSOR)[m % 2], m) for m in range(60)]
    second = [row(f"{REPEATED_NIGHT} 02:{m:02}", (SENSOR, OTHER_SENSOR)[m % 2], 60 + m) for m in range(60)]
    bucket.write("data_0.csv", row(f"{REPEATED_NIGHT} 01:59", value=-1), *first, *second)
    bucket.load()
    assert bucket.values() == list(range(-1, 120))


def test_a_refused_row_is_no_step_back(bucket: Bucket) -> None:
    lines = [row(f"{REPEATED_NIGHT} {time}") for time in ("01:50", "02:10", "02:40", "02:50")]
    bucket.write("data_0.csv", *lines[:3], row(f"{REPEATED_NIGHT} 02:00", value="x"), lines[3])
    bucket.load()
    assert bucket.times()[-1] == f"{REPEATED_NIGHT} 02:50+02"


def test_two_nights_of_two_years_in_one_file_are_told_apart_each_by_itself(bucket: Bucket) -> None:
    night = ["01:50", "02:30", "02:10", "03:10"]
    bucket.write(
        "data_0.csv", *(row(f"{day} {time}") for day in ("2013-10-27", "2014-10-26") for time in night)
    )
    bucket.load()
    shown = ["01:50+02", "02:30+02", "02:10+01", "03:10+01"]
    assert bucket.times() == [f"{day} {time}" for day in ("2013-10-27", "2014-10-26") for time in shown]


def test_the_same_wall_time_in_both_passes_is_two_readings(bucket: Bucket) -> None:
    bucket.write("data_0.csv", *(row(f"{REPEATED_NIGHT} {time}") for time in ("02:10", "02:30", "02:10")))
    report = bucket.load()
    assert (report.rows_loaded, report.rows_duplicate) == (3, 0)


def test_a_month_of_rows_in_any_order_is_read_right_outside_the_repeated_hour(bucket: Bucket) -> None:
    times = [f"2013-10-{day:02} {hour:02}:00" for day in (28, 27, 26) for hour in (3, 1, 0, 23)]
    bucket.write("data_0.csv", *map(row, times))
    bucket.load()
    assert [time[:16] for time in bucket.times()] == sorted(times)


# ------------------------------------------------------------------- the missing hour


def test_a_naive_time_of_the_missing_hour_is_read_with_the_offset_before_and_counted(bucket: Bucket) -> None:
    write_night(bucket, MISSING_NIGHT, "01:59", "02:00", "02:59", "03:00", "02:30+01:00")
    report = bucket.load()
    assert passes(bucket) == ["01:59+01", "03:00+02", "03:59+02", "03:00+02", "03:30+02"]
    assert report.rows_in_missing_hour == 2
    assert bucket.sql("SELECT rows_in_missing_hour FROM source_files") == [(2,)]


def test_a_refused_row_of_the_missing_hour_is_not_counted(bucket: Bucket) -> None:
    bucket.write("data_0.csv", row(f"{MISSING_NIGHT} 02:30", value="x"), row())
    assert bucket.load().rows_in_missing_hour == 0
