"""What the times of a file mean, above all in the nights when the clock changes."""

import random
from dataclasses import dataclass
from datetime import datetime

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_pipeline.ingest.fragment import convert_object
from iot_pipeline.store import DirectoryStore
from iot_pipeline.warehouse import open_folder, readings_file
from iot_pipeline_tests.conftest import BERLIN, OTHER_SENSOR, SENSOR, Bucket, berlin, csv_of, row

REPEATED_NIGHT = "2013-10-27"
MISSING_NIGHT = "2013-03-31"


def write_night(bucket: Bucket, night: str, *times: str, key: str = "data_0.csv") -> None:
    bucket.write(key, *(row(f"{night} {time}", value=i) for i, time in enumerate(times)))


def berlin_wall(second: int) -> str:
    """Return seconds since the epoch as a clock in Berlin shows them, without an offset."""
    return f"{datetime.fromtimestamp(second, BERLIN):%Y-%m-%d %H:%M:%S}"


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


A, B, C = (f"{i:08x}-0000-4000-8000-000000000000" for i in range(3))


def write_sensors(bucket: Bucket, *rows: tuple[str, str]) -> None:
    """Write the rows of several sensors in the night, in this order."""
    bucket.write("data_0.csv", *(row(f"{REPEATED_NIGHT} {t}", uuid, i) for i, (uuid, t) in enumerate(rows)))


def passes_of(bucket: Bucket, uuid: str) -> list[str]:
    """Return a sensor's times of the night in the order of the file, as Berlin's clock shows them."""
    rows = bucket.sql(
        "SELECT strftime(timestamp, '%H:%M:%S%z') FROM measurements WHERE sensor_uuid = $uuid"
        " ORDER BY sensor_value",
        uuid=uuid,
    )
    return [time.replace(":00+", "+") for (time,) in rows]


def test_a_reading_of_another_sensor_that_comes_late_shifts_nobody(bucket: Bucket) -> None:
    write_sensors(
        bucket,
        (A, "01:50"),
        (B, "01:55"),
        (A, "02:10"),
        (B, "02:09:59"),
        (A, "02:25"),
        (B, "02:24"),
        (A, "02:40"),
    )
    bucket.load()
    assert passes_of(bucket, A) == ["01:50+02", "02:10+02", "02:25+02", "02:40+02"]
    assert passes_of(bucket, B) == ["01:55+02", "02:09:59+02", "02:24+02"]


def test_a_sensor_that_sends_half_an_hour_late_shifts_only_itself(bucket: Bucket) -> None:
    punctual = [(uuid, f"02:{minute}") for minute in ("00", "12", "24", "36", "48", "58") for uuid in (A, C)]
    write_sensors(
        bucket, (A, "01:50"), (C, "01:50"), *punctual[:8], (B, "02:38"), (B, "02:02"), *punctual[8:]
    )
    bucket.load()
    assert {time[-3:] for uuid in (A, C) for time in passes_of(bucket, uuid)} == {"+02"}


@pytest.mark.parametrize("before", [["01:50"], []])
def test_a_jitter_of_two_seconds_is_no_second_pass(bucket: Bucket, before: list[str]) -> None:
    write_night(bucket, REPEATED_NIGHT, *before, "02:10:05", "02:10:03", "02:25:05", "02:40:04")
    bucket.load()
    assert {time[-3:] for time in passes(bucket)} == {"+02"}


def test_each_sensor_of_a_file_sorted_by_sensor_is_told_apart_by_its_own_rows(bucket: Bucket) -> None:
    night = ["01:50", "02:10", "02:40", "02:05", "02:30", "03:10"]
    write_sensors(bucket, *((uuid, time) for uuid in (A, B, C) for time in night))
    bucket.load()
    for uuid in (A, B, C):
        shown = ["01:50+02", "02:10+02", "02:40+02", "02:05+01", "02:30+01", "03:10+01"]
        assert passes_of(bucket, uuid) == shown


def test_a_sensor_with_one_row_in_the_hour_follows_the_others_of_a_file_in_the_order_of_time(
    bucket: Bucket,
) -> None:
    first, second = ["02:00", "02:15", "02:30", "02:45"], ["02:02", "02:17", "02:32", "02:47"]
    write_sensors(
        bucket,
        (A, "01:45"),
        *((A, time) for time in first[:3]),
        (B, "02:31"),
        (A, first[3]),
        *((A, time) for time in second[:2]),
        (C, "02:18"),
        *((A, time) for time in second[2:]),
        (A, "03:02"),
    )
    bucket.load()
    assert (passes_of(bucket, B), passes_of(bucket, C)) == (["02:31+02"], ["02:18+01"])


def test_a_sensor_with_one_row_in_the_hour_is_in_its_first_pass_in_a_file_sorted_by_sensor(
    bucket: Bucket,
) -> None:
    night = ["01:50", "02:10", "02:40", "02:05", "02:30", "03:10"]
    write_sensors(bucket, *((A, time) for time in night), (B, "01:40"), (B, "02:20"), (B, "03:20"))
    bucket.load()
    assert passes_of(bucket, B) == ["01:40+02", "02:20+02", "03:20+01"]


def test_hourly_readings_of_a_file_in_the_order_of_time_are_told_apart_by_its_other_sensors(
    bucket: Bucket,
) -> None:
    hours = ("01", "02", "02", "03")
    write_sensors(bucket, *((uuid, f"{h}:{m}") for h in hours for uuid, m in ((A, 10), (B, 30), (C, 50))))
    bucket.load()
    assert passes_of(bucket, A) == ["01:10+02", "02:10+02", "02:10+01", "03:10+01"]
    assert passes_of(bucket, C) == ["01:50+02", "02:50+02", "02:50+01", "03:50+01"]


def test_a_file_that_begins_within_the_first_pass_has_the_sensors_without_a_row_in_it_in_the_second(
    bucket: Bucket,
) -> None:
    write_sensors(
        bucket,
        (A, "02:40"),
        (A, "02:55"),
        (A, "02:10"),
        (B, "02:12"),
        (A, "02:25"),
        (B, "02:50"),
        (A, "03:10"),
        (B, "03:15"),
    )
    bucket.load()
    assert passes_of(bucket, B) == ["02:12+01", "02:50+01", "03:15+01"]


def test_a_file_sorted_by_sensor_that_begins_in_the_first_pass_holds_nothing_from_before(
    bucket: Bucket,
) -> None:
    stepping = ["02:40", "02:55", "02:10", "02:25", "03:10"]
    write_sensors(bucket, *((A, time) for time in stepping), *((B, t) for t in ("02:12", "02:50", "03:15")))
    bucket.load()
    assert passes_of(bucket, B) == ["02:12+01", "02:50+01", "03:15+01"]


def test_the_offset_of_another_sensor_is_a_sign_where_the_own_rows_have_none(bucket: Bucket) -> None:
    write_sensors(
        bucket,
        (A, "02:10+02:00"),
        (B, "02:12"),
        (A, "02:50+02:00"),
        (A, "02:10+01:00"),
        (B, "02:20"),
        (A, "02:30+01:00"),
    )
    bucket.load()
    assert passes_of(bucket, B) == ["02:12+02", "02:20+01"]


@dataclass(frozen=True)
class Night:
    """Sensors that are read every 5 to 30 minutes over the night in which the clock repeats an hour.

    Attributes:
        start: Minutes from the beginning of the first pass to the file's first row; negative before it.
        end: To its last row.
    """

    start: int
    end: int
    n_sensors: int
    seed: int
    most_late: int
    by_sensor: bool

    def rows(self) -> list[tuple[str, int]]:
        """Return uuids and true seconds since the epoch, in the order of the file."""
        chance = random.Random(self.seed)  # noqa: S311 - times, not secrets
        rows = []
        for number in range(self.n_sensors):
            uuid = f"{number:08x}-0000-4000-8000-000000000000"
            minute = self.start + chance.randint(0, 25)
            while minute <= self.end:
                arrival = number if self.by_sensor else minute + chance.uniform(0, self.most_late)
                rows.append((arrival, minute, uuid, minute * 60))
                if chance.random() < 0.1 and minute % 60:
                    rows.append((arrival, minute, uuid, minute * 60 - 2))  # a jitter
                minute += chance.randint(5, 30)
        rows.sort(key=lambda row: row[:2])
        return [(uuid, FIRST_PASS + second) for _, _, uuid, second in rows]


FIRST_PASS = 1_382_832_000  # 2013-10-27 02:00 in Berlin, for the first time

nights = st.builds(
    Night,
    start=st.integers(-120, 30),
    end=st.integers(40, 240),
    n_sensors=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    most_late=st.integers(0, 3),
    by_sensor=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(nights)
def test_true_instants_come_back_from_naive_wall_times(
    tmp_path_factory: pytest.TempPathFactory, night: Night
) -> None:
    directory = tmp_path_factory.mktemp("night")
    rows = night.rows()
    lines = [row(berlin_wall(second), uuid, i) for i, (uuid, second) in enumerate(rows)]
    directory.joinpath("data_0.csv").write_bytes(csv_of(*lines))
    source = DirectoryStore(directory)
    info = convert_object(source, source.list_objects()[0], open_folder(directory))
    found = pq.read_table(directory / readings_file(info.fragment)).to_pylist()
    found.sort(key=lambda reading: reading["sensor_value"])
    assert [berlin(int(reading["timestamp"].timestamp()) * 1_000_000) for reading in found] == [
        berlin(second * 1_000_000) for _, second in rows
    ]


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
