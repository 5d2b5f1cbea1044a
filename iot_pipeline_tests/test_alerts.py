"""What is news after a run, and how it reads. Pure: nothing is sent."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.alerts.digest import Digest, FailedCheck, Memory, Run, compose, headline
from iot_pipeline.alerts.events import Event, Findings, read_events
from iot_pipeline.alerts.message import render_digest
from iot_pipeline.berlin import BERLIN

CLOCK = datetime(2013, 11, 1, 12, tzinfo=BERLIN)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
GOOD = Run("0123456789abcdef", succeeded=True)
NOTHING = Memory()


def event(event_id: str = "e1", sensor: str = "sensor_00003", **changes: Any) -> Event:
    usual = Event(
        event_id=event_id,
        sensor_name=sensor,
        kind="spike",
        start=CLOCK - 5 * HOUR,
        end=CLOCK - 5 * HOUR,
        n_readings=1,
        peak_score=20.0,
        mean_residual=17.0,
        incident_id=event_id,
    )
    return replace(usual, **changes)


def shift(until: datetime = CLOCK, *, ongoing: bool = True, **changes: Any) -> Event:
    return event(
        kind="level_shift", start=CLOCK - 9 * HOUR, end=until, n_readings=50, ongoing=ongoing, **changes
    )


REASONINGS = {"sensor_00003": "Climbs steadily. In figures: linear beats quadratic by 5 points of BIC."}


def tell(
    *events: Event, known: Memory | None = NOTHING, run: Run = GOOD, clock: datetime = CLOCK
) -> tuple[Digest, Memory | None]:
    return compose(run, Findings(clock, events, REASONINGS), known, min_score=8)


def news(*events: Event, known: Memory | None = NOTHING, **options: Any) -> list[str]:
    """Return the ids of the events that are told as new."""
    digest, _ = tell(*events, known=known, **options)
    return [each.event_id for incident in digest.incidents for each in incident]


def ended(*events: Event, known: Memory | None) -> list[str]:
    digest, _ = tell(*events, known=known)
    return [each.event_id for each in digest.ended]


def after(*events: Event, known: Memory | None = NOTHING, **options: Any) -> Memory | None:
    return tell(*events, known=known, **options)[1]


# --------------------------------------------------------------------------------- events


def test_the_first_good_run_of_a_warehouse_is_silent_and_what_it_found_stays_untold() -> None:
    digest, known = tell(event(), shift(event_id="e2"), known=None)
    assert not digest.is_news
    assert known
    assert news(event(), shift(event_id="e2"), known=known) == []
    assert ended(event(), shift(event_id="e2", ongoing=False), known=known) == []


def test_a_failed_first_run_is_told_and_the_next_good_one_is_still_the_silent_first() -> None:
    digest, known = tell(known=None, run=Run("run", succeeded=False, error="can't list s3://bucket"))
    assert digest.is_news
    assert known is None


def test_a_new_event_is_told_once() -> None:
    assert news(event()) == ["e1"]
    assert news(event(), known=after(event())) == []


def test_an_event_that_grows_and_changes_its_kind_is_told_once() -> None:
    assert news(shift(), known=after(event())) == []


@pytest.mark.parametrize(
    "unworthy",
    [
        event(peak_score=7.9),
        event(start=CLOCK - 5 * DAY, end=CLOCK - 4 * DAY),
        event(annotation="false_alarm"),
        event(annotation="confirmed"),
    ],
    ids=["weak", "old", "false alarm", "confirmed"],
)
def test_an_event_that_is_weak_old_or_annotated_is_not_told(unworthy: Event) -> None:
    assert news(unworthy) == []


def test_an_event_whose_annotation_is_withdrawn_before_anybody_was_told_is_news() -> None:
    assert news(event(), known=after(event(annotation="false_alarm"))) == ["e1"]
    assert news(event(), known=after(event(annotation="false_alarm"), known=after(event()))) == []


def test_a_weak_event_is_news_when_it_grows_strong() -> None:
    assert news(event(), known=after(event(peak_score=7.0))) == ["e1"]


def test_an_ongoing_level_shift_over_five_nightly_loads_is_told_once_and_then_that_it_has_ended_once() -> (
    None
):
    known: Memory | None = NOTHING
    told = []
    for night in range(5):
        digest, known = tell(shift(CLOCK + night * DAY), known=known, clock=CLOCK + night * DAY)
        told.append(digest.is_news)
    assert told == [True, False, False, False, False]
    over = shift(CLOCK + 4 * DAY + HOUR, ongoing=False)
    assert ended(over, known=known) == ["e1"]
    assert ended(over, known=after(over, known=known)) == []


def test_an_ongoing_event_that_the_model_follows_from_now_on_is_told_once_with_the_reason() -> None:
    digest, known = tell(known=after(shift()))
    html = render_digest(digest, warehouse="/data", explore_url="https://example.org")
    assert "No longer anomalous" in html
    assert (
        "<b>sensor_00003</b>: the readings since 2013-11-01 03:00 are no longer taken as anomalous. <a href="
        in html
    )
    assert "Climbs steadily.<" in html
    assert not tell(known=known)[0].is_news
    assert news(shift(), known=known) == []


def test_an_ongoing_event_that_another_one_of_its_time_replaces_is_still_one() -> None:
    digest, known = tell(shift(event_id="e2"), known=after(shift()))
    assert not digest.is_news
    assert len(tell(known=known)[0].settled) == 1


def test_an_ongoing_event_is_still_one_after_a_run_whose_events_can_not_be_read() -> None:
    failed = Run("run", succeeded=False, error="files are gone")
    digest, known = compose(failed, Findings(), after(shift()), min_score=8)
    assert not digest.settled
    assert tell(known=known)[0].settled


def test_an_event_that_vanishes_and_comes_back_under_another_name_is_told_once() -> None:
    gone = after(known=after(event()))
    assert news(event("e9"), known=gone) == []
    assert news(event("e9"), known=after(event("e9"), known=gone)) == []


def test_what_people_know_outlives_a_run_whose_events_can_not_be_read() -> None:
    failed = Run("run", succeeded=False, error="files are gone")
    _, known = compose(failed, Findings(), after(event()), min_score=8)
    assert news(event(), known=known) == []


def test_another_event_of_the_sensor_is_news() -> None:
    assert news(event(), event("e2", start=CLOCK - HOUR, end=CLOCK - HOUR), known=after(event())) == ["e2"]


@given(st.lists(st.lists(st.integers(0, 5), unique=True, max_size=6), max_size=8))
def test_whatever_comes_and_goes_no_event_is_told_twice(nights: list[list[int]]) -> None:
    known: Memory | None = NOTHING
    told: list[str] = []
    for found in nights:
        events = [
            event(f"e{number}", start=CLOCK - number * HOUR, end=CLOCK - number * HOUR) for number in found
        ]
        told += news(*events, known=known)
        known = after(*events, known=known)
    assert sorted(told) == sorted({f"e{number}" for found in nights for number in found})


def test_weak_events_of_several_sensors_at_once_are_told() -> None:
    weak = [event(f"e{number}", f"sensor_{number}", peak_score=4.0, incident_id="e0") for number in range(3)]
    assert news(*weak) == ["e0", "e1", "e2"]
    assert news(event("e0", peak_score=4.0), event("e1", peak_score=4.0, incident_id="e0")) == []


def test_400_sensors_that_fall_silent_at_once_are_one_incident() -> None:
    silent = [
        event(f"e{number}", f"sensor_{number:05}", kind="gap", start=CLOCK - DAY, incident_id="e0")
        for number in range(400)
    ]
    digest, _ = tell(*silent)
    assert headline(digest) == "Sensors: 400 new events on 400 sensors"
    assert len(digest.incidents) == 1
    html = " ".join(render_digest(digest, warehouse="/data").split())
    assert "400 sensors at once" in html
    assert "The strongest is <b>sensor_00000</b>: no readings for 19 h" in html
    assert "Also sensor_00001 (gap), sensor_00002 (gap), sensor_00003 (gap) and 396 more." in html


# --------------------------------------------------------------------------------- checks


SILENT = FailedCheck("no_sensor_fell_silent", is_error=False, found="silent sensors 1", count=1)
ROTTEN = FailedCheck("no_file_is_quarantined", is_error=True, found="files quarantined 1", count=1)


def told_checks(*checks: FailedCheck, known: Memory | None = NOTHING) -> tuple[list[str], list[str]]:
    """Return the names of the checks that are news and of those that people know of."""
    digest, _ = tell(known=known, run=replace(GOOD, checks=checks))
    return [check.name for check in digest.checks], list(digest.standing)


def knowing(*checks: FailedCheck, known: Memory | None = NOTHING) -> Memory | None:
    return after(known=known, run=replace(GOOD, checks=checks))


def test_a_warning_is_told_once_as_long_as_it_finds_no_more() -> None:
    assert told_checks(SILENT) == ([SILENT.name], [])
    assert told_checks(SILENT, known=knowing(SILENT)) == ([], [SILENT.name])
    assert told_checks(replace(SILENT, count=2), known=knowing(SILENT)) == ([SILENT.name], [])


def test_a_warning_that_comes_back_is_told_again() -> None:
    assert told_checks(SILENT, known=knowing(known=knowing(SILENT))) == ([SILENT.name], [])


def test_an_error_is_told_each_time() -> None:
    assert told_checks(ROTTEN, known=knowing(ROTTEN)) == ([ROTTEN.name], [])


def test_what_was_an_error_yesterday_is_no_news_as_a_warning() -> None:
    assert told_checks(replace(ROTTEN, is_error=False), known=knowing(ROTTEN)) == ([], [ROTTEN.name])


def test_a_run_that_failed_before_its_checks_does_not_make_people_forget_them() -> None:
    failed = Run("run", succeeded=False, error="disk full")
    assert told_checks(SILENT, known=after(known=knowing(SILENT), run=failed)) == ([], [SILENT.name])


# -------------------------------------------------------------------------------- reading


def test_events_are_read_with_what_alerts_need_to_know_of_their_sensors() -> None:
    with duckdb.connect() as connection:
        connection.execute("""
            SET TimeZone = 'Europe/Berlin';
            CREATE TABLE last_readings AS FROM (VALUES
                ('a', TIMESTAMPTZ '2013-11-01 10:00'), ('b', TIMESTAMPTZ '2013-11-01 12:00')
            ) AS rows(sensor_name, timestamp);
            CREATE TABLE sensor_models AS SELECT 'a' AS sensor_name, 'Because.' AS reasoning;
            CREATE TABLE events(
                event_id VARCHAR, sensor_name VARCHAR, kind VARCHAR, start TIMESTAMPTZ, "end" TIMESTAMPTZ,
                n_readings BIGINT, peak_score DOUBLE, mean_residual DOUBLE, incident_id VARCHAR,
                annotation VARCHAR
            );
            INSERT INTO events VALUES
                ('1', 'a', 'drift', '2013-10-31 10:00', '2013-11-01 10:00', 9, 10.5, -2, 'i', NULL),
                ('2', 'b', 'spike', '2013-11-01 12:00', '2013-11-01 12:00', 1, 30, 2, NULL, 'confirmed'),
                ('3', 'b', 'stuck', '2013-09-01 12:00', '2013-09-02 12:00', 9, 30, 2, '3', NULL);
        """)
        found = read_events(connection)
    assert found.clock == CLOCK
    assert found.events == (
        Event("2", "b", "spike", CLOCK, CLOCK, 1, 30.0, 2.0, "2", "confirmed"),
        Event(
            "1",
            "a",
            "drift",
            datetime(2013, 10, 31, 10, tzinfo=BERLIN),
            datetime(2013, 11, 1, 10, tzinfo=BERLIN),
            9,
            10.5,
            -2.0,
            "i",
            ongoing=True,
        ),
    )
    assert found.reasonings == {"a": "Because."}


# -------------------------------------------------------------------------------- wording


def render(*events: Event, run: Run = GOOD, explore_url: str = "") -> str:
    return render_digest(tell(*events, run=run)[0], warehouse="/data", explore_url=explore_url)


def test_a_message_says_of_an_event_which_sensor_what_kind_when_in_berlin_and_why() -> None:
    html = render(shift())
    assert "<b>sensor_00003</b>: level shift, 2013-11-01 03:00 to 12:00, and goes on:" in html
    assert "50 readings too high, as rare as a reading at 20.0 sd." in html
    assert "Climbs steadily.<" in html
    assert "Europe/Berlin" in html


def test_a_gap_says_how_long_there_were_no_readings() -> None:
    html = render(event(kind="gap", start=CLOCK - 31 * HOUR, end=CLOCK - HOUR, mean_residual=None))
    assert "no readings for 1 d 6 h, 2013-10-31 05:00 to 2013-11-01 11:00" in html


@pytest.mark.parametrize("kind", ["stuck", "variance"])
def test_readings_that_lie_on_both_sides_are_neither_too_high_nor_too_low(kind: str) -> None:
    html = render(event(kind=kind, n_readings=28, end=CLOCK))
    assert f"{kind}, 2013-11-01 07:00 to 12:00: 28 readings, as rare as" in html


def test_an_event_links_to_the_page_that_shows_it_a_day_before_and_after() -> None:
    html = render(event(), explore_url="https://example.org/explore")
    assert (
        'href="https://example.org/explore/?sensor=sensor_00003&amp;start=2013-10-31T07%3A00%2B01%3A00'
        '&amp;end=2013-11-02T07%3A00%2B01%3A00"'
    ) in html
    assert "href" not in render(event())


def test_names_and_errors_are_shown_as_text() -> None:
    bad = Run("run", succeeded=False, error="<script>error", checks=(replace(SILENT, found="<i>x"),))
    html = render(event(sensor="<b>&"), run=bad)
    assert "<script>" not in html
    assert "<i>" not in html
    assert "<b>&lt;b&gt;&amp;</b>: spike" in html


@pytest.mark.parametrize(
    ("digest", "title"),
    [
        (tell(event())[0], "1 new event on sensor_00003"),
        (tell(event(), event("e2", "b"))[0], "2 new events on 2 sensors"),
        (tell(shift(ongoing=False), known=after(shift()))[0], "1 event has ended"),
        (tell(known=after(shift()))[0], "1 event is no longer anomalous"),
        (tell(run=replace(GOOD, checks=(SILENT,)))[0], "1 check warns"),
        (tell(run=Run("run", succeeded=False, checks=(ROTTEN,)))[0], "the run failed, 1 check failed"),
        (tell(event(sensor="a\nBcc: b"))[0], "1 new event on a Bcc: b"),
    ],
)
def test_the_title_counts_what_is_new_in_one_line(digest: Digest, title: str) -> None:
    assert headline(digest) == f"Sensors: {title}"
