"""What is looked at: sensors, a range of time and a scale; a link holds all of it."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import parse_qs, urlencode

from iot_pipeline.berlin import from_instant, to_instant
from iot_pipeline.explore._berlin_axis import SECOND
from iot_pipeline.warehouse.query import read_moment

MOST_SENSORS = 6
"""That can be looked at side by side."""
_SHORTEST = 10 * 60 * SECOND
_EARLIEST, _LATEST = (to_instant(datetime(year, 1, 1)) for year in (1900, 2200))  # noqa: DTZ001 - Berlin's
"""Between which everything happens; near the ends of the calendar there is no Berlin's clock."""


@dataclass(frozen=True, slots=True)
class View:
    """Sensors over one range of time.

    Attributes:
        sensors: Their names, the first one is the one that is talked about.
        start: Microseconds since the epoch, whole seconds; None for the sensors' first reading.
        end: Likewise; None for their last reading.
        bulk: Whether the axes are scaled to the bulk of the readings instead of to all.
    """

    sensors: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    bulk: bool = False

    @classmethod
    def from_query(cls, query: str) -> "View":
        """Read the part of a link after the question mark; `to_query` writes it.

        Raises:
            ValueError: A time can't be read, the start is not before the end, or there is no such scale.
        """
        fields = parse_qs(query.removeprefix("?"))
        start, end = (_read_time(fields[name][0]) if name in fields else None for name in ("start", "end"))
        if start is not None and end is not None and start >= end:
            raise ValueError(f"start {fields['start'][0]} is not before end {fields['end'][0]}")
        sensors = tuple(dict.fromkeys(fields.get("sensor", [])))
        (scale,) = fields.get("scale", ["all"])[-1:]
        if scale not in {"all", "bulk"}:
            raise ValueError(f"scale must be all or bulk, not {scale!r}")
        return cls(sensors[:MOST_SENSORS], _bounded(start), _bounded(end), bulk=scale == "bulk")

    def to_query(self) -> str:
        """Return the part of a link after the question mark; times are Berlin's, with their offset."""
        fields = [("sensor", name) for name in self.sensors]
        for name, instant in (("start", self.start), ("end", self.end)):
            if instant is not None:
                fields.append((name, from_instant(instant).isoformat().replace(":00+", "+")))
        if self.bulk:
            fields.append(("scale", "bulk"))
        return urlencode(fields, safe=":")

    def between(self, start: float, end: float) -> "View":
        """Look at another range, at least ten minutes of it."""
        missing = max(_SHORTEST - (end - start), 0) / 2
        first, last = round((start - missing) / SECOND), round((end + missing) / SECOND)
        return replace(self, start=_bounded(first * SECOND), end=_bounded(last * SECOND))

    def toggled(self, sensor: str) -> "View":
        """Add a sensor to those that are compared, or take it away; one always stays."""
        if sensor not in self.sensors:
            return replace(self, sensors=(*self.sensors, sensor)[-MOST_SENSORS:])
        return replace(self, sensors=tuple(name for name in self.sensors if name != sensor) or self.sensors)

    def range(self, extent: tuple[int, int]) -> tuple[int, int]:
        """Return the first and the last instant that are shown.

        Args:
            extent: Those of the sensors' readings.
        """
        start = extent[0] if self.start is None else self.start
        end = extent[1] if self.end is None else self.end
        return (start, end) if start < end else (start, start + _SHORTEST)


def _bounded(instant: int | None) -> int | None:
    return None if instant is None else min(max(instant, _EARLIEST), _LATEST)


def _read_time(text: str) -> int:
    """Read a time; a plus that nobody has encoded has become a blank."""
    instant = read_moment(re.sub(r"(T\S+) (\d\d:?\d\d)$", r"\1+\2", text))
    return instant // SECOND * SECOND
