"""All sensors at once: ranks, the heat map, incidents."""

import numpy as np

from iot_pipeline.explore._fleet import (
    Events,
    heat,
    incidents,
    rank,
    severities,
    sparklines,
)

HOUR = 3_600_000_000

Row = tuple[int, float, float, float]
"""Sensor, start and end in hours, score."""


def events_of(*rows: Row, together: int = 0) -> Events:
    """Make events, of which the first ones together are an incident."""
    rows = tuple(sorted(rows, key=lambda row: row[1]))
    sensor, start, end = (np.array([row[i] for row in rows]) for i in range(3))
    starts, ends = (start * HOUR).astype(np.int64), (end * HOUR).astype(np.int64)
    zeros = np.zeros(len(rows), np.int64)
    return Events(
        sensor=sensor.astype(np.int64),
        kind=zeros,
        start=starts,
        end=ends,
        peak_score=np.array([row[3] for row in rows], float),
        incident=np.where(np.arange(len(rows)) < together, 7, -1),
        annotation=np.full(len(rows), "", object),
    )


def test_a_window_ranks_all_sensors_by_the_strongest_score_in_it() -> None:
    events = events_of((0, 1, 2, 90), (1, 5, 6, 10), (2, 7, 7, 20), (2, 8, 8, 6))
    order, strongest, counts = rank(events, 4, 5 * HOUR, 9 * HOUR)
    assert order.tolist() == [2, 1, 0, 3]
    assert strongest.tolist() == [0, 10, 20, 0]
    assert counts.tolist() == [0, 1, 2, 0]


def test_an_event_that_begins_before_the_window_and_ends_after_it_is_in_it() -> None:
    events = events_of((0, 0, 100, 7))
    assert rank(events, 1, 50 * HOUR, 51 * HOUR)[1].tolist() == [7]


def test_a_cell_of_the_heat_map_holds_the_strongest_score() -> None:
    events = events_of((0, 1, 1, 5), (0, 1.5, 1.5, 9), (1, 0, 3.5, 6))
    cells = heat(events, np.array([1, 0]), 0, 4 * HOUR, bins=4)
    assert cells.tolist() == [[0, 0, 6], [1, 0, 6], [2, 0, 6], [3, 0, 6], [1, 1, 9]]


def test_the_heat_map_cuts_events_at_its_edges() -> None:
    cells = heat(events_of((0, 0, 100, 5)), np.array([0]), 10 * HOUR, 12 * HOUR, bins=2)
    assert cells.tolist() == [[0, 0, 5], [1, 0, 5]]


def test_without_events_nothing_is_hot_ranked_or_drawn() -> None:
    nothing = events_of()
    assert not len(heat(nothing, np.arange(2), 0, HOUR, bins=10))
    assert rank(nothing, 2, 0, HOUR)[0].tolist() == [0, 1]
    assert sparklines(nothing, 2) == ["", ""]
    assert incidents(nothing) == []


def test_an_incident_is_all_that_belongs_to_it_with_the_strongest_sensor_first() -> None:
    events = events_of(
        (0, 1, 2, 5), (1, 1.5, 3, 9), (2, 2.4, 2.5, 7), (0, 10, 11, 50), (1, 10, 10, 5), together=3
    )
    (incident,) = incidents(events)
    assert incident.sensors == (1, 2, 0)
    assert (incident.start, incident.end) == (HOUR, 3 * HOUR)
    assert incident.peak_score == 9


def test_severity_is_the_sum_of_the_scores_even_of_absurd_ones() -> None:
    severity = severities(np.array([0, 0, 2]), np.array([5.0, 7.0, np.inf]), 3)
    assert severity.tolist()[:2] == [12, 0]
    assert np.isfinite(severity[2])


def test_a_sparkline_has_a_stroke_for_each_time_that_something_happened() -> None:
    quiet, loud = sparklines(events_of((1, 0, 0, 6), (1, 10, 10, 200)), 2)
    assert not quiet
    assert loud.count("M") == 2
    assert loud.endswith("v-14")
