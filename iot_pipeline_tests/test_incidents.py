"""Which events are one incident, and which only happen to fall together."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.anomalies.incidents import EventTime, link_events
from iot_pipeline.berlin import DAY, HOUR

MINUTE = HOUR // 60
MONTH = 30 * DAY


def happening(sensor: int, start: int, score: float = 5.0, *, length: int = 0) -> EventTime:
    return EventTime(f"{sensor}@{start}", f"sensor_{sensor}", start, start + length, score)


def chance(sensors: int, events: int, seed: int) -> list[EventTime]:
    """Return events of sensors that know nothing of each other."""
    random = np.random.default_rng(seed)
    drawn = zip(
        random.integers(sensors, size=events).tolist(),
        random.integers(MONTH, size=events).tolist(),
        (HOUR * random.lognormal(0, 2, size=events)).astype(int).tolist(),  # a few of them last for weeks
        strict=True,
    )
    found = (happening(sensor, start, length=length) for sensor, start, length in drawn)
    return list({event.event_id: event for event in found}.values())


def test_sensors_that_something_happens_to_within_the_hour_are_one_incident() -> None:
    alone = [happening(9, DAY), happening(8, 20 * DAY)]
    together = [happening(sensor, 3 * DAY + 5 * sensor * MINUTE) for sensor in range(8)]
    incidents = link_events([*alone, *together], span=MONTH)
    assert Counter(incidents.values()).most_common() == [
        (together[0].event_id, 8),
        (alone[0].event_id, 1),
        (alone[1].event_id, 1),
    ]


def test_four_hundred_sensors_that_fall_silent_at_once_are_one_incident_called_after_the_strongest() -> None:
    silent = [happening(sensor, DAY, float(sensor)) for sensor in range(400)]
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
    events = [happening(1, DAY + minute * MINUTE) for minute in range(0, 60, 5)]
    assert len(set(link_events(events, span=MONTH).values())) == len(events)


def test_two_sensors_at_once_are_no_incident() -> None:
    assert len(set(link_events([happening(1, DAY), happening(2, DAY)], span=MONTH).values())) == 2


def test_a_fleet_without_a_common_cause_shows_an_incident_once_in_a_thousand_times_at_most() -> None:
    with_incident = 0
    for seed in range(100):
        events = chance(500, 1_000, seed)
        with_incident += len(set(link_events(events, span=MONTH).values())) < len(events)
    assert with_incident <= 1


def test_sensors_that_fall_silent_one_after_the_other_in_an_afternoon_are_one_incident() -> None:
    power_is_back = DAY + 18 * HOUR
    silent = [
        happening(sensor, start, length=power_is_back - start)
        for sensor, start in enumerate(range(DAY + 13 * HOUR, power_is_back, 40 * MINUTE))
    ]
    others = chance(20, 60, seed=1)
    incidents = link_events([*others, *silent], span=MONTH)
    assert len({incidents[event.event_id] for event in silent}) == 1


def test_events_that_do_not_overlap_are_no_incident() -> None:
    events = [happening(sensor, DAY + sensor * 90 * MINUTE, length=20 * MINUTE) for sensor in range(12)]
    assert len(set(link_events(events, span=MONTH).values())) == len(events)


def test_a_long_drift_over_all_that_happens_meanwhile_is_no_part_of_it_and_links_nothing() -> None:
    drift = happening(99, HOUR, length=25 * DAY)
    first, second = (
        [happening(sensor, day * DAY + sensor * MINUTE, length=3 * HOUR) for sensor in range(10)]
        for day in (5, 9)
    )
    alone = happening(98, 7 * DAY)
    incidents = link_events([drift, *first, *second, alone], span=MONTH)
    assert Counter(incidents.values()) == {
        first[0].event_id: 10,
        second[0].event_id: 10,
        drift.event_id: 1,
        alone.event_id: 1,
    }


def test_many_drifts_that_go_on_at_once_are_no_incident() -> None:
    events = [happening(sensor, sensor * 7 * HOUR, length=20 * DAY) for sensor in range(60)]
    assert len(set(link_events(events, span=MONTH).values())) == len(events)


def test_what_happens_within_hours_that_overlap_is_one_incident() -> None:
    events = [happening(sensor, DAY + sensor * 10 * MINUTE) for sensor in range(12)]
    assert len(set(link_events(events, span=MONTH).values())) == 1


@given(
    st.lists(
        st.builds(
            happening,
            st.integers(0, 5),
            st.integers(0, 200).map(lambda n: n * 10 * MINUTE),
            length=st.integers(0, 2 * DAY),
        ),
        unique_by=lambda event: event.event_id,
    ),
    st.randoms(),
)
def test_incidents_depend_on_the_events_alone_and_are_called_after_one_of_them(
    events: list[EventTime], random: object
) -> None:
    incidents = link_events(events, span=MONTH)
    assert link_events(events[::-1], span=MONTH) == incidents
    assert incidents.keys() == {event.event_id for event in events}
    starts = {event.event_id: event.start for event in events}
    for event_id, incident_id in incidents.items():
        assert incidents[incident_id] == incident_id
        assert starts[incident_id] <= starts[event_id]
