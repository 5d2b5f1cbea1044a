"""A link holds all that is looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.explore._berlin_axis import SECOND
from iot_pipeline.explore._view import MOST_SENSORS, View
from iot_pipeline.warehouse.query import read_moment

instants = st.integers(0, 7_000_000_000).map(lambda seconds: seconds * SECOND)
names = st.lists(st.text(min_size=1), max_size=MOST_SENSORS, unique=True).map(tuple)
ranges = st.tuples(instants, instants).filter(lambda ends: ends[0] < ends[1])


@given(names, ranges, st.booleans())
def test_a_link_restores_the_view_whatever_the_sensors_are_called(
    sensors: tuple[str, ...],
    ends: tuple[int, int],
    bulk: bool,  # noqa: FBT001 - hypothesis' argument
) -> None:
    view = View(sensors, *ends, bulk=bulk)
    assert View.from_query(view.to_query()) == view
    whole = View(sensors, bulk=bulk)
    assert View.from_query(f"?{whole.to_query()}") == whole


def test_both_passes_of_the_repeated_hour_have_links_of_their_own() -> None:
    first, second = read_moment("2013-10-27T02:30+02:00"), read_moment("2013-10-27T02:30+01:00")
    assert View(("a",), first, second).to_query() == (
        "sensor=a&start=2013-10-27T02:30%2B02:00&end=2013-10-27T02:30%2B01:00"
    )


@pytest.mark.parametrize("text", ["2013-10-05T12:00+02:00", "2013-10-05T12:00", "2013-10-05 12:00"])
def test_a_link_may_be_typed_by_hand(text: str) -> None:
    assert View.from_query(f"sensor=a&start={text}").start == read_moment("2013-10-05T10:00Z")


def test_a_date_is_berlins_midnight() -> None:
    assert View.from_query("start=2013-10-05").start == read_moment("2013-10-04T22:00Z")


@pytest.mark.parametrize(
    "query", ["start=soon", "end=2013-13-01", "start=2013-10-05&end=2013-10-04", "scale=log"]
)
def test_a_link_that_cant_be_read_says_why(query: str) -> None:
    with pytest.raises(ValueError, match=r"can't read the time|is not before end|must be all or bulk"):
        View.from_query(query)


def test_a_range_ends_within_the_years_that_have_a_clock() -> None:
    typed = View.from_query("start=0001-01-01&end=9999-12-31")
    assert typed.to_query() == "start=1900-01-01T00:00%2B01:00&end=2200-01-01T00:00%2B01:00"
    assert View().between(-(10**17), 10**18) == typed


def test_a_range_never_gets_shorter_than_ten_minutes() -> None:
    view = View().between(3_000_000.4, 3_000_001.2)
    assert view.start is not None
    assert view.end is not None
    assert view.end - view.start == 600 * SECOND


def test_a_sensor_is_compared_until_it_is_toggled_again_and_one_always_stays() -> None:
    view = View(("a",)).toggled("b")
    assert view.sensors == ("a", "b")
    assert view.toggled("a").sensors == ("b",)
    assert view.toggled("a").toggled("b").sensors == ("b",)


def test_without_a_range_all_readings_are_shown() -> None:
    assert View().range((5, 9)) == (5, 9)
    assert View(start=7).range((5, 9)) == (7, 9)
