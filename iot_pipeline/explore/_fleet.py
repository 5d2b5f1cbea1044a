"""All sensors at once: how severe they are, what was odd in a window, and what happened together."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from iot_pipeline.thinning import FloatArray, IntArray

_SPARK_BINS = 40
_SPARK_HEIGHT = 14


@dataclass(frozen=True, eq=False, slots=True)
class Events:
    """Events of all sensors; all arrays have the same length and are sorted by start.

    Attributes:
        sensor: int64, the sensor's position among all.
        kind: int64, the kind's number.
        start: int64, microseconds since the epoch.
        end: int64, likewise, included.
        peak_score: float64, in standard deviations of a Gaussian as rare.
        incident: int64, what happened together has the same number; -1 for what happened alone.
        annotation: str, what people said, empty for nothing.
    """

    sensor: IntArray
    kind: IntArray
    start: IntArray
    end: IntArray
    peak_score: FloatArray
    incident: IntArray
    annotation: npt.NDArray[np.object_]

    def within(self, start: int, end: int) -> npt.NDArray[np.intp]:
        """Return the positions of the events that touch a window, both ends included."""
        return np.flatnonzero((self.start <= end) & (self.end >= start))

    def of(self, sensor: int) -> npt.NDArray[np.intp]:
        """Return the positions of a sensor's events."""
        return np.flatnonzero(self.sensor == sensor)

    def only(self, sensor: int) -> "Events":
        """Return a sensor's events alone."""
        own = self.of(sensor)
        return Events(**{field.name: getattr(self, field.name)[own] for field in fields(self)})


@dataclass(frozen=True, slots=True)
class Incident:
    """Events of several sensors that happened together.

    Attributes:
        start: Microseconds since the epoch.
        end: Likewise.
        sensors: The sensors' positions, the highest score first.
        peak_score: The highest score of all.
    """

    start: int
    end: int
    sensors: tuple[int, ...]
    peak_score: float


def severities(sensor: IntArray, peak_score: FloatArray, n_sensors: int) -> FloatArray:
    """Sum the peak scores of each sensor's events: float64[n_sensors]."""
    total = np.zeros(n_sensors)
    np.add.at(total, sensor, np.minimum(peak_score, 1e9))
    return total


def rank(events: Events, n_sensors: int, start: int, end: int) -> tuple[IntArray, FloatArray, IntArray]:
    """Rank all sensors by what was odd in a window.

    Args:
        events: Of all sensors.
        n_sensors: How many there are.
        start: The window in microseconds since the epoch.
        end: Likewise, included.

    Returns:
        The sensors' positions, the highest score first; each sensor's highest score in the window, 0 for
        none; how many of its events touch the window. The last two are in the order of the sensors.
    """
    found = events.within(start, end)
    strongest = np.zeros(n_sensors)
    np.maximum.at(strongest, events.sensor[found], events.peak_score[found])
    count = np.bincount(events.sensor[found], minlength=n_sensors)
    return np.lexsort((-count, -strongest)), strongest, count


def heat(events: Events, rows: IntArray, start: int, end: int, bins: int) -> FloatArray:
    """Compute the cells of a heat map, sensors by time.

    Args:
        events: Of all sensors.
        rows: int64[n_sensors], the row that each sensor has.
        start: The left edge in microseconds since the epoch.
        end: The right edge.
        bins: How many columns.

    Returns:
        float64[m, 3]: column, row and the strongest score, for cells that have one.
    """
    found = events.within(start, end)
    width = max(end - start, 1) / bins
    first = np.clip((events.start[found] - start) // width, 0, bins - 1).astype(np.int64)
    last = np.clip((events.end[found] - start) // width, 0, bins - 1).astype(np.int64)
    lengths = last - first + 1
    owner = np.repeat(np.arange(len(found)), lengths)
    column = first[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    cell = rows[events.sensor[found]][owner] * bins + column
    cells, position = np.unique(cell, return_inverse=True)
    strongest = np.zeros(len(cells))
    np.maximum.at(strongest, position, events.peak_score[found][owner])
    return np.column_stack((cells % bins, cells // bins, strongest))


def sparklines(events: Events, n_sensors: int) -> list[str]:
    """Return for each sensor an SVG path of its events over all time: strokes, as high as they are strong.

    It is 40 wide and 14 high; a score of 5 or less is low, one of 100 or more is as high as it gets.
    """
    if not len(events.start):
        return [""] * n_sensors
    rows = np.arange(n_sensors)
    cells = heat(events, rows, int(events.start.min()), int(events.end.max()) + 1, _SPARK_BINS)
    height = np.clip(np.log10(np.maximum(cells[:, 2], 1) / 5) / np.log10(20), 0.2, 1) * _SPARK_HEIGHT
    strokes: list[list[str]] = [[] for _ in range(n_sensors)]
    for (column, row, _), size in zip(cells, height, strict=True):
        strokes[int(row)].append(f"M{column + 0.5:g} {_SPARK_HEIGHT}v-{size:.0f}")
    return ["".join(path) for path in strokes]


def incidents(events: Events) -> list[Incident]:
    """List what happened together, the most sensors first."""
    part = np.flatnonzero(events.incident >= 0)
    order = part[np.lexsort((-events.peak_score[part], events.incident[part]))]
    groups = np.split(order, np.flatnonzero(np.diff(events.incident[order])) + 1) if len(order) else []
    found = [
        Incident(
            start=int(events.start[group].min()),
            end=int(events.end[group].max()),
            sensors=tuple(dict.fromkeys(events.sensor[group].tolist())),
            peak_score=float(events.peak_score[group].max()),
        )
        for group in groups
    ]
    return sorted(found, key=lambda incident: (-len(incident.sensors), -incident.peak_score, incident.start))
