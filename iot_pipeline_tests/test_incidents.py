"""Which events are one incident, and which only happen to fall together."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.anomalies.incidents import Beginning, link_events
from iot_pipeline.berlin import DAY, HOUR

MINUTE = HOUR // 60
MONTH = 30 * DAY


def beginning(sensor: int, start: int, score: float = 5.0) -> Beginning:
    return Beginning(f"{sensor}@{start}", f"sensor_{sensor}", start, score)


def chance(sensors: int, events: int, seed: int) -> list[Beginning]:
    """Return events of sensors that know nothing of each other."""
    random = np.random.default_rng(seed)
    drawn = zip(random.integers(sensors, size=events), random.integers(MONTH, size=events), strict=True)
    return list({event.event_id: event for event in (beginning(int(s), int(t)) for s, t in drawn)}.values())


def test_sensors_that_something_happens_to_within_the_hour_are_one_incident() -> None:
    alone = [beginning(9, DAY), beginning(8, 20 * DAY)]
    together = [beginning(sensor, 3 * DAY + 5 * sensor * MINUTE) for sensor in range(8)]
    incidents = link_events([*alone, *together], span=MONTH)
    assert Counter(incidents.values()).most_common() == [
        (together[0].event_id, 8),
        (alone[0].event_id, 1),
        (alone[1].event_id, 1),
    ]


def test_four_hundred_sensors_that_fall_silent_at_once_are_one_incident_called_after_the_strongest() -> None:
    silent = [beginning(sensor, DAY, float(sensor)) for sensor in range(400)]
    others = chance(400, 2_000, seed=1)
    incidents = link_events([*others, *silent], span=MONTH)
    (incident_id,) = {incidents[event.event_id] for event in silent}
    members = [event for event in [*others, *silent] if incidents[event.event_id] == incident_id]
    earliest = min(event.start for event in members)
    assert (
        incident_id
        == max(
            (event for event in members if event.start == earliest), key=lambda event: event.peak_score
        ).event_id
    )


def test_many_events_of_one_sensor_are_no_incident() -> None:
    events = [beginning(1, DAY + minute * MINUTE) for minute in range(0, 60, 5)]
    assert len(set(link_events(events, span=MONTH).values())) == len(events)


def test_two_sensors_at_once_are_no_incident() -> None:
    assert len(set(link_events([beginning(1, DAY), beginning(2, DAY)], span=MONTH).values())) == 2


def test_a_fleet_without_a_common_cause_shows_an_incident_once_in_a_thousand_times_at_most() -> None:
    with_incident = 0
    for seed in range(100):
        events = chance(500, 1_000, seed)
        with_incident += len(set(link_events(events, span=MONTH).values())) < len(events)
    assert with_incident <= 1


def test_what_happens_within_hours_that_overlap_is_one_incident() -> None:
    events = [beginning(sensor, DAY + sensor * 10 * MINUTE) for sensor in range(12)]
    assert len(set(link_events(events, span=MONTH).values())) == 1


@given(
    st.lists(
        st.builds(beginning, st.integers(0, 5), st.integers(0, 200).map(lambda n: n * 10 * MINUTE)),
        unique_by=lambda event: event.event_id,
    ),
    st.randoms(),
)
def test_incidents_depend_on_the_events_alone_and_are_called_after_one_of_them(
    events: list[Beginning], random: object
) -> None:
    incidents = link_events(events, span=MONTH)
    assert link_events(events[::-1], span=MONTH) == incidents
    assert incidents.keys() == {event.event_id for event in events}
    starts = {event.event_id: event.start for event in events}
    for event_id, incident_id in incidents.items():
        assert incidents[incident_id] == incident_id
        assert starts[incident_id] <= starts[event_id]
