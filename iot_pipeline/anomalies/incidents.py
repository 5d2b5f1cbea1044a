"""Which events are one incident: sensors that something happened to at once.

A power cut, a gateway that dropped out or a release shows in many sensors within the hour. Events that only
happen to fall together stay apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iot_pipeline.berlin import HOUR

WINDOW = HOUR
"""Events of one cause begin within this time of one another."""
FEWEST_SENSORS = 3
CHANCE = 1e-3
"""The chance that a fleet without any common cause shows an incident at all."""


class Beginning(NamedTuple):
    """What is needed of an event.

    Attributes:
        event_id: Its id.
        sensor_name: Its sensor.
        start: When it begins, in microseconds since the epoch.
        peak_score: How strong it is.
    """

    event_id: str
    sensor_name: str
    start: int
    peak_score: float


def link_events(events: Sequence[Beginning], *, span: int) -> dict[str, str]:
    """Return the id of the incident that each event belongs to, by event id.

    Events that begin within an hour are linked where so many sensors at once are more than chance: with
    events beginning at the fleet's own rate, as a Poisson process, less than one such hour in a thousand
    fleets. It is the scan statistic with Bonferroni's bound (Naus, "Approximations for distributions of scan
    statistics", JASA 77, 1982). An incident is called after its earliest event, the strongest of these; an
    event that is linked with no other is an incident of its own.

    Args:
        events: All of them, in any order.
        span: From the first to the last reading of the fleet, in microseconds.
    """
    ordered = sorted(events, key=lambda event: (event.start, -event.peak_score, event.event_id))
    incidents = {event.event_id: event.event_id for event in ordered}
    fewest = _fewest_sensors(len(ordered), max(span, WINDOW))
    starts = np.array([event.start for event in ordered], dtype=np.int64)
    stops = np.searchsorted(starts, starts + WINDOW, side="right")
    linked_until = 0  # exclusive; windows that share an event are one incident
    current = ""
    for first, stop in enumerate(stops.tolist()):
        window = ordered[first:stop]
        if stop - first < fewest or len({event.sensor_name for event in window}) < fewest:
            continue
        if first >= linked_until:
            current = ordered[first].event_id
        for event in ordered[max(first, linked_until) : stop]:
            incidents[event.event_id] = current
        linked_until = max(linked_until, stop)
    return incidents


def _fewest_sensors(n_events: int, span: int) -> int:
    """Return how many sensors at once are more than chance.

    Of n events each begins a window; in one the others are as many as a Poisson variable.
    """
    from scipy import stats  # noqa: PLC0415 - slow to import

    rate = n_events * WINDOW / span
    others = int(stats.poisson.isf(CHANCE / max(n_events, 1), rate)) + 1
    return max(FEWEST_SENSORS, others + 1)
