"""Which events are one incident: sensors that something happened to at once.

A power cut, a gateway that dropped out or a release shows in many sensors at the same time. Events that only
happen to overlap stay apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iot_pipeline.berlin import HOUR

SLACK = HOUR
"""How long an event counts as going on after its end: a spike has no length, and sensors sample apart."""
REACHES = (HOUR // 6, HOUR, 6 * HOUR)
"""Events of one cause begin within one of these times, so a drift of weeks links nothing."""
FEWEST_SENSORS = 3
CHANCE = 1e-3
"""The chance that a fleet without any common cause shows an incident at all."""


class EventTime(NamedTuple):
    """What is needed of an event.

    Attributes:
        event_id: Its id.
        sensor_name: Its sensor.
        start: When it begins, in microseconds since the epoch.
        end: When it ends, likewise.
        peak_score: How strong it is.
    """

    event_id: str
    sensor_name: str
    start: int
    end: int
    peak_score: float


def link_events(events: Sequence[EventTime], *, span: int) -> dict[str, str]:
    """Return the id of the incident that each event belongs to, by event id.

    Whenever an event begins, those that have begun within the last ten minutes (or the last hour, or six) and
    still go on are linked where so many sensors are more than chance: with events that begin independently,
    at the fleet's own rate, less than one fleet in a thousand would ever show as many. Their number is that
    of the customers of an M/G/∞ queue, a Poisson variable whose mean is the rate times the mean time that one
    stays (Takács, Introduction to the Theory of Queues, 1962); here it stays for six hours at most.

    Moments that share an event are one incident. It is called after its earliest event, the strongest of
    these; an event that is linked with no other is an incident of its own.

    Args:
        events: All of them, in any order.
        span: From the first to the last reading of the fleet, in microseconds.
    """
    ordered = sorted(events, key=lambda event: (event.start, -event.peak_score, event.event_id))
    starts = np.array([event.start for event in ordered], dtype=np.int64)
    ends = np.array([event.end for event in ordered], dtype=np.int64) + SLACK
    sensors = np.unique([event.sensor_name for event in ordered], return_inverse=True)[1]
    moments = np.unique(starts)
    stops = np.searchsorted(starts, moments, side="right")
    incidents = np.arange(len(starts))  # by the position of an incident's first event
    for reach in REACHES:
        fewest = _fewest_sensors(np.minimum(ends - starts, reach), max(span, reach))
        firsts = np.searchsorted(starts, moments - reach)
        for moment, first, stop in zip(moments, firsts, stops, strict=True):
            if stop - first < fewest:
                continue
            together = first + np.flatnonzero(ends[first:stop] >= moment)
            if len(np.unique(sensors[together])) >= fewest:
                linked = np.unique(incidents[together])
                incidents[np.isin(incidents, linked)] = linked[0]
    return {event.event_id: ordered[first].event_id for event, first in zip(ordered, incidents, strict=True)}


def _fewest_sensors(stays: np.ndarray, span: int) -> int:
    """Return how many sensors at once are more than chance, by how long each event stays."""
    from scipy import stats  # noqa: PLC0415 - slow to import

    others = int(stats.poisson.isf(CHANCE / max(len(stays) * len(REACHES), 1), stays.sum() / span)) + 1
    return max(FEWEST_SENSORS, others + 1)
