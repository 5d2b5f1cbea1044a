"""The time zone of the data, Europe/Berlin: its months, and how to read timestamps.

Instants are microseconds since 1970-01-01 00:00 UTC, as Parquet stores them.
"""

import re
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

TIME_ZONE = "Europe/Berlin"
BERLIN = ZoneInfo(TIME_ZONE)
HOUR = 3_600_000_000
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_YEAR = 2200
_LARGEST_OFFSET = timedelta(hours=15)
_TIMESTAMP = re.compile(
    r"(?P<hour>\d{4}-\d\d-\d\d[T ]\d\d):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.(?P<fraction>\d+))?)?"
    r" ?(?P<offset>[Zz]|[+-]\d\d(?::?[0-5]\d)?)?",
    re.ASCII,
)


_DAYS_AGO = {"today": 0, "yesterday": 1}


class Timestamp(NamedTuple):
    """The meaning of a written timestamp.

    Attributes:
        instant: Microseconds since the epoch.
        repeated_hour: If the time has no offset and the clock shows it twice, the instant at which the hour's
            first pass begins; ``instant`` then means the first pass. Otherwise None.
        missing: Whether the time has no offset and the clock skips it.
    """

    instant: int
    repeated_hour: int | None = None
    missing: bool = False


def to_instant(moment: datetime) -> int:
    """Return a datetime as microseconds since the epoch; a naive one means Europe/Berlin."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=BERLIN)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_instant(instant: int) -> datetime:
    """Return microseconds since the epoch as a datetime in Europe/Berlin."""
    return (_EPOCH + timedelta(microseconds=instant)).astimezone(BERLIN)


def read_day(text: str, today: date) -> date | None:
    """Return the date of ``today``, ``yesterday`` or, for example, ``7 days ago``; None for other text."""
    words = " ".join(text.lower().split())
    ago = re.fullmatch(r"(\d{1,5}) days? ago", words, re.ASCII)
    days = int(ago[1]) if ago else _DAYS_AGO.get(words)
    return None if days is None else today - timedelta(days=days)


def describe_length(length: timedelta) -> str:
    """Return how long something took, in the two greatest units that matter; nothing for a moment."""
    seconds = round(length / timedelta(seconds=1))
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds} s" if seconds else ""
    minutes = round(seconds / 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days:,} d {hours} h" if days < 10 and hours else f"{days:,} d"  # noqa: PLR2004 - as exact as needed
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min"


def read_timestamp(text: str) -> Timestamp | None:
    """Read an ISO 8601 date and time with or without an offset; None if the text is not one.

    Without an offset it is wall time in Europe/Berlin. A time that the clock skips in March is read with the
    offset before the change, as in ``zoneinfo``. Fractions are truncated to microseconds.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    hour_text, minute, second, fraction, offset = match.groups()
    hour = _read_hour(hour_text, offset)
    if hour is None:
        return None
    within = (int(minute) * 60 + int(second or 0)) * 1_000_000
    if fraction:
        within += int(f"{fraction:0<6}"[:6])
    return Timestamp(hour.instant + within, hour.repeated_hour, hour.missing)


@lru_cache(maxsize=10_000)
def _read_hour(text: str, offset: str | None) -> Timestamp | None:
    """Read the part of a timestamp before its minutes; the clock only ever changes on the hour."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if offset is None:
        instant = to_instant(moment)
        later = to_instant(moment.replace(fold=1))
        return Timestamp(instant, instant if later > instant else None, missing=later < instant)
    if offset in "Zz":
        offset = "+00"
    sign = -1 if offset[0] == "-" else 1
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:].lstrip(":") or 0))
    if shift > _LARGEST_OFFSET:
        return None
    return Timestamp(to_instant(moment.replace(tzinfo=UTC)) - sign * (shift // timedelta(microseconds=1)))


@cache
def _month_starts() -> tuple[list[str], npt.NDArray[np.int64]]:
    firsts = [
        datetime(year, month, 1, tzinfo=BERLIN) for year in range(1970, _LAST_YEAR) for month in range(1, 13)
    ]
    names = [f"{first:%Y-%m}" for first in firsts]
    starts = np.array([to_instant(first) for first in firsts], dtype=np.int64)
    return names, starts


def count_by_month(instants: npt.NDArray[np.int64]) -> dict[str, int]:
    """Count instants (int64 microseconds) by month in Europe/Berlin, like ``2013-01``, in ascending order."""
    if not len(instants):
        return {}
    first, last = month_of(int(instants.min())), month_of(int(instants.max()))
    if first == last:
        return {first: len(instants)}
    names, starts = _month_starts()
    months, counts = np.unique(np.searchsorted(starts, instants, side="right") - 1, return_counts=True)
    return {names[month]: int(count) for month, count in zip(months, counts, strict=True)}


def month_bounds(month: str) -> tuple[int, int]:
    """Return the first instant of a month in Europe/Berlin and that of the next month."""
    names, starts = _month_starts()
    position = names.index(month)
    return int(starts[position]), int(starts[position + 1])


def month_of(instant: int) -> str:
    """Return the month of an instant in Europe/Berlin, like ``2013-01``."""
    names, starts = _month_starts()
    return names[max(bisect_right(starts, instant) - 1, 0)]
