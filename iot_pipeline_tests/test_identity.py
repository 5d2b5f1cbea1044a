"""Which event is which after a sensor has been judged anew."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.anomalies.identity import Span, name_events, remember

INSTANTS = np.arange(100, dtype=np.int64) * 10
"""A reading each ten microseconds."""


def named(found: Sequence[Span], earlier: Sequence[tuple[str, Span]] = ()) -> list[str]:
    return name_events("a", found, earlier, INSTANTS)


spans = st.builds(
    lambda kind, first, length: Span(kind, first * 10, min(first + length, 99) * 10),
    st.sampled_from(["burst", "gap", "level_shift"]),
    st.integers(0, 99),
    st.integers(0, 30),
)
many = st.lists(spans, max_size=8, unique=True)
known = many.map(lambda found: list(zip(named(found), found, strict=True)))


@given(st.lists(spans, max_size=8, unique_by=lambda span: (span.kind, span.start)))
def test_a_new_event_has_an_id_of_its_own_that_depends_on_nothing_else(found: list[Span]) -> None:
    ids = named(found)
    assert len(set(ids)) == len(ids)
    assert [named([span])[0] for span in found] == ids
    assert all(len(event_id) == 12 for event_id in ids)


@given(known)
def test_events_that_are_found_again_keep_their_ids(earlier: list[tuple[str, Span]]) -> None:
    assert named([span for _, span in earlier], earlier) == [event_id for event_id, _ in earlier]


@given(known, many)
def test_the_order_in_which_events_are_found_makes_no_difference(
    earlier: list[tuple[str, Span]], found: list[Span]
) -> None:
    ids = dict(zip(found, named(found, earlier), strict=True))
    shuffled, others = found[::-1], sorted(earlier, key=lambda entry: entry[0])
    assert dict(zip(shuffled, named(shuffled, others), strict=True)) == ids


@given(known, many)
def test_no_two_events_ever_share_an_id(earlier: list[tuple[str, Span]], found: list[Span]) -> None:
    assert len(set(named(found, earlier))) == len(found)


@given(known, many)
def test_an_id_is_carried_on_only_by_an_event_that_touches_the_earlier_one(
    earlier: list[tuple[str, Span]], found: list[Span]
) -> None:
    before = dict(earlier)
    for event_id, span in zip(named(found, earlier), found, strict=True):
        if old := before.get(event_id):
            assert span.start <= old.end + 10
            assert old.start <= span.end + 10


@given(known, st.lists(many, min_size=1, max_size=3))
def test_events_that_are_again_what_they_were_before_maintenance_have_their_ids_again(
    first: list[tuple[str, Span]], later: list[list[Span]]
) -> None:
    before, remembered = first, list[tuple[str, Span]]()
    for found in later:
        now = list(zip(named(found, [*before, *remembered]), found, strict=True))
        before, remembered = now, remember(before, remembered, now)
    assert named([span for _, span in first], [*before, *remembered]) == [event_id for event_id, _ in first]


@given(known, st.lists(many, min_size=1, max_size=3))
def test_of_each_event_that_vanished_or_changed_one_time_is_remembered(
    first: list[tuple[str, Span]], later: list[list[Span]]
) -> None:
    before, remembered, seen = first, list[tuple[str, Span]](), {event_id for event_id, _ in first}
    for found in later:
        now = list(zip(named(found, [*before, *remembered]), found, strict=True))
        before, remembered = now, remember(before, remembered, now)
        seen.update(event_id for event_id, _ in now)
        assert not set(now) & set(remembered)
        assert len(dict(remembered)) == len(remembered)
        assert dict(now).keys() | dict(remembered).keys() == seen


def test_an_event_that_grows_by_a_day_each_night_and_changes_its_kind_keeps_its_id() -> None:
    earlier: list[tuple[str, Span]] = []
    seen = set()
    for night, kind in enumerate(["burst", "burst", "level_shift", "drift", "level_shift"]):
        span = Span(kind, 300 - 10 * night, 400 + 100 * night)
        (event_id,) = named([span], earlier)
        earlier = [(event_id, span)]
        seen.add(event_id)
    assert len(seen) == 1


def test_of_two_halves_the_longer_one_carries_the_id_on() -> None:
    earlier = [("old", Span("level_shift", 100, 500))]
    short, long = Span("level_shift", 100, 200), Span("level_shift", 250, 500)
    ids = named([short, long], earlier)
    assert ids[1] == "old"
    assert ids[0] != "old"


def test_an_event_that_begins_with_the_next_reading_is_the_same_and_one_later_is_not() -> None:
    earlier = [("old", Span("burst", 100, 200))]
    assert named([Span("burst", 210, 300)], earlier) == ["old"]
    assert named([Span("burst", 220, 300)], earlier) != ["old"]


def test_a_gap_within_a_level_shift_stays_the_gap() -> None:
    shift, gap = Span("level_shift", 100, 500), Span("gap", 200, 300)
    earlier = [("shift", shift), ("gap", gap)]
    assert named([gap, Span("level_shift", 100, 600)], earlier) == ["gap", "shift"]


def test_a_new_event_does_not_take_the_id_of_one_that_began_at_the_same_time_and_moved() -> None:
    (moved,) = named([Span("burst", 500, 600)])
    ids = named([Span("burst", 100, 480), Span("burst", 500, 510)], [(moved, Span("burst", 100, 600))])
    assert ids[0] == moved
    assert ids[1] != moved
