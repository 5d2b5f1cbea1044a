"""The ticks of a time axis are Berlin's, on the days when the clock changes too."""

from datetime import datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.berlin import BERLIN, to_instant
from iot_pipeline.explore._berlin_axis import SECOND, label, ticks

DAY = 86_400 * SECOND


def at(text: str) -> int:
    return to_instant(datetime.fromisoformat(text).replace(tzinfo=BERLIN))


def labels(start: str, end: str, most: int) -> list[str]:
    return list(ticks(at(start), at(end), most=most).values())


def test_the_hour_that_the_clock_repeats_is_named_twice_with_its_pass() -> None:
    assert labels("2013-10-27T00:00", "2013-10-27T05:00", 8) == [
        "27 Oct",
        "01:00",
        "02:00 CEST",
        "02:00 CET",
        "03:00",
        "04:00",
        "05:00",
    ]


def test_the_hour_that_the_clock_skips_is_not_named() -> None:
    assert labels("2013-03-31T00:00", "2013-03-31T05:00", 6) == [
        "31 Mar",
        "01:00",
        "03:00",
        "04:00",
        "05:00",
    ]


def test_days_with_23_and_25_hours_begin_and_end_at_midnight() -> None:
    assert labels("2013-03-30T00:00", "2013-04-02T00:00", 5) == ["30 Mar", "31 Mar", "Apr", "2 Apr"]
    assert labels("2013-10-26T00:00", "2013-10-29T00:00", 5) == ["26 Oct", "27 Oct", "28 Oct", "29 Oct"]


def test_hours_after_a_change_are_as_round_as_before() -> None:
    assert labels("2013-10-27T00:00", "2013-10-28T00:00", 9)[-6:] == [
        "09:00",
        "12:00",
        "15:00",
        "18:00",
        "21:00",
        "28 Oct",
    ]


def test_a_long_time_is_divided_into_months_and_years() -> None:
    assert labels("2013-01-01T00:00", "2014-01-01T00:00", 5) == ["2013", "Apr", "Jul", "Oct", "2014"]
    assert labels("1970-01-01T00:00", "2170-01-01T00:00", 5)[:2] == ["2000", "2050"]


def test_a_time_with_seconds_shows_them() -> None:
    assert label(at("2013-01-01T12:00:05")) == "12:00:05"


@given(st.integers(0, 6 * 10**15), st.integers(10 * SECOND, 6 * 10**15), st.integers(2, 12))
def test_ticks_lie_on_the_axis_in_order_and_are_few(start: int, span: int, most: int) -> None:
    instants = list(ticks(start, start + span, most=most))
    assert all(start <= instant <= start + span for instant in instants)
    assert all(left < right for left, right in pairwise(instants))
    # Months and the days of a change differ in length.
    assert len(instants) <= most + 2


@given(st.integers(1_300_000_000, 1_500_000_000), st.integers(2, 900))
def test_ticks_of_a_day_or_more_stand_at_midnight(start: int, days: int) -> None:
    for instant in ticks(start * SECOND, start * SECOND + days * DAY, most=2):
        time = datetime.fromtimestamp(instant / SECOND, BERLIN)
        assert (time.hour, time.minute, time.second) == (0, 0, 0)
