"""What a written timestamp means."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_pipeline.berlin import (
    BERLIN,
    HOUR,
    count_by_month,
    describe_length,
    month_bounds,
    month_of,
    read_timestamp,
    to_instant,
)

NOON = to_instant(datetime(2013, 1, 1, 11, tzinfo=UTC))
FIRST_PASS = to_instant(datetime(2013, 10, 27, 0, tzinfo=UTC))
"""When Berlin's clock showed 02:00 for the first time that night."""


def instant_of(text: str) -> int:
    timestamp = read_timestamp(text)
    assert timestamp is not None
    return timestamp.instant


@pytest.mark.parametrize(
    "text",
    [
        "2013-01-01 12:00:00",
        "2013-01-01T12:00:00",
        "2013-01-01 12:00",
        "2013-01-01 12:00:00+01",
        "2013-01-01 12:00:00+0100",
        "2013-01-01 12:00:00+01:00",
        "2013-01-01 12:00:00 +01:00",
        "2013-01-01T11:00:00Z",
        "2013-01-01 11:00:00+00",
        "2013-01-01 11:00:00-00:00",
        "2013-01-01 12:00:00.000000",
        "2013-01-01 16:30:00+05:30",
        "2013-01-01 01:00:00-1000",
    ],
)
def test_noon_is_noon_however_it_is_written(text: str) -> None:
    assert instant_of(text) == NOON


@pytest.mark.parametrize(
    ("fraction", "microseconds"),
    [(".5", 500_000), (".000001", 1), (".123456", 123_456), (".1234567", 123_456), (".999999999", 999_999)],
)
@pytest.mark.parametrize("offset", ["", "+01:00"])
def test_fractions_of_a_second_are_kept_to_the_microsecond(
    fraction: str, microseconds: int, offset: str
) -> None:
    assert instant_of(f"2013-01-01 12:00:00{fraction}{offset}") == NOON + microseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2013",
        "2013-01-01",
        "2013-01-01 12",
        "2013-1-1 12:00:00",
        "2013-13-01 12:00:00",
        "2013-02-30 12:00:00",
        "2013-01-01 25:00:00",
        "2013-01-01 24:30:00",
        "2013-01-01 12:60:00",
        "2013-01-01 12:00:60",
        "2013-01-01 12:00:00.",
        "2013-01-01 12:00:00,5",
        "2013-01-01  12:00:00",
        "2013-01-01 12:00:00+1",
        "2013-01-01 12:00:00+99:00",
        "2013-01-01 12:00:00+01:60",
        "2013-01-01 12:00:00 CET",
        "2013-01-01 12:00:00ZZ",
        "12:00:00",
        "0000-01-01 00:00:00",
        "20130101T120000",
        "2013-W01-2 12:00:00",
    ],
)
def test_what_is_no_date_and_time_is_refused(text: str) -> None:
    assert read_timestamp(text) is None


def test_a_naive_time_is_wall_time_in_berlin_in_winter_and_summer() -> None:
    assert instant_of("2013-01-01 12:00:00") == instant_of("2013-01-01 11:00:00Z")
    assert instant_of("2013-07-01 12:00:00") == instant_of("2013-07-01 10:00:00Z")


def test_a_naive_time_of_the_repeated_hour_is_its_first_pass_and_says_so() -> None:
    timestamp = read_timestamp("2013-10-27 02:30:00")
    assert timestamp is not None
    assert (timestamp.instant, timestamp.repeated_hour) == (FIRST_PASS + HOUR // 2, FIRST_PASS)


@pytest.mark.parametrize(("offset", "later"), [("+02:00", 0), ("+01:00", HOUR)])
def test_an_offset_tells_the_passes_of_the_repeated_hour_apart(offset: str, later: int) -> None:
    timestamp = read_timestamp(f"2013-10-27 02:30:00{offset}")
    assert timestamp is not None
    assert (timestamp.instant, timestamp.repeated_hour) == (FIRST_PASS + HOUR // 2 + later, None)


@pytest.mark.parametrize("time", ["01:59:59", "03:00:00"])
def test_the_hours_around_the_repeated_one_are_plain(time: str) -> None:
    timestamp = read_timestamp(f"2013-10-27 {time}")
    assert timestamp is not None
    assert timestamp.repeated_hour is None


@pytest.mark.parametrize(
    ("time", "missing"), [("01:59:59", False), ("02:00:00", True), ("02:59:59", True), ("03:00:00", False)]
)
def test_a_naive_time_of_the_missing_hour_has_the_offset_before_the_change(time: str, missing: bool) -> None:  # noqa: FBT001
    timestamp = read_timestamp(f"2013-03-31 {time}")
    assert timestamp is not None
    assert timestamp.missing is missing
    assert timestamp.instant == to_instant(datetime.fromisoformat(f"2013-03-31 {time}"))
    if missing:
        assert timestamp.instant == instant_of(f"2013-03-31 {time}+01:00")


moments = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30))
near_a_change = st.builds(
    lambda year, change, minutes: datetime(year, *change) + timedelta(minutes=minutes),
    st.integers(1996, 2100),
    st.sampled_from([(3, 31), (3, 25), (10, 25), (10, 31)]),
    st.integers(-24 * 60, 24 * 60),
)
Spelling = Callable[[str], str]
offsets = st.integers(-15 * 60, 15 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
separators = st.sampled_from("T ")
precisions = st.sampled_from(["auto", "minutes", "seconds", "milliseconds", "microseconds"])


@settings(max_examples=300, deadline=None)
@given(moments | near_a_change, separators, precisions)
def test_a_naive_time_is_read_as_zoneinfo_reads_it(moment: datetime, separator: str, precision: str) -> None:
    text = moment.isoformat(separator, precision)
    timestamp = read_timestamp(text)
    assert timestamp is not None
    expected = datetime.fromisoformat(text).replace(tzinfo=BERLIN)
    assert timestamp.instant == to_instant(expected)
    back = datetime.fromtimestamp(timestamp.instant / 1e6, BERLIN).replace(microsecond=0, tzinfo=None)
    assert timestamp.missing is (back != expected.replace(microsecond=0, tzinfo=None))
    first, second = to_instant(expected), to_instant(expected.replace(fold=1))
    assert (timestamp.repeated_hour is not None) is (second > first)


@settings(max_examples=300, deadline=None)
@given(
    moments | near_a_change,
    separators,
    precisions,
    offsets,
    st.sampled_from([str, lambda text: text.replace(":", ""), lambda text: text.removesuffix(":00")]),
)
def test_an_offset_is_honoured_in_every_spelling(
    moment: datetime, separator: str, precision: str, offset: timezone, spell: Spelling
) -> None:
    text = moment.isoformat(separator, precision)
    written = moment.replace(tzinfo=offset).isoformat()[-6:]
    timestamp = read_timestamp(text + spell(written))
    assert timestamp is not None
    expected = datetime.fromisoformat(text + written)
    assert timestamp.instant == to_instant(expected)
    assert timestamp.repeated_hour is None
    assert not timestamp.missing


@settings(max_examples=300)
@given(st.text(max_size=30) | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}.{0,9}\Z"))
def test_no_text_makes_the_reading_fail(text: str) -> None:
    timestamp = read_timestamp(text)
    assert timestamp is None or isinstance(timestamp.instant, int)


@settings(max_examples=100)
@given(moments)
def test_a_month_is_that_of_berlins_calendar(moment: datetime) -> None:
    instant = to_instant(moment)
    month = f"{datetime.fromtimestamp(instant // 1_000_000, BERLIN):%Y-%m}"
    assert month_of(instant) == month
    assert count_by_month(np.array([instant, instant])) == {month: 2}
    first, after = month_bounds(month)
    assert first <= instant < after


def test_months_follow_each_other_without_a_gap() -> None:
    assert month_bounds("2013-03")[1] == month_bounds("2013-04")[0]
    assert month_of(month_bounds("2013-04")[0] - 1) == "2013-03"
    first, after = month_bounds("2013-03")
    assert after - first == (31 * 24 - 1) * HOUR


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(), ""),
        (timedelta(seconds=20), "20 s"),
        (timedelta(seconds=59.8), "1 min"),
        (timedelta(minutes=59, seconds=50), "1 h"),
        (timedelta(hours=3, minutes=10), "3 h 10 min"),
        (timedelta(days=2, hours=4, minutes=5), "2 d 4 h"),
        (timedelta(days=1200, hours=4), "1,200 d"),
    ],
)
def test_a_length_of_time_is_written_in_the_units_that_matter(length: timedelta, text: str) -> None:
    assert describe_length(length) == text
