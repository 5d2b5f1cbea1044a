"""Where a time axis has its ticks and what they say: Berlin's clock, wherever the browser is.

The axis itself runs in instants, so the hour that the clock repeats in October has room for both its passes,
and the one that it skips in March takes none.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from iot_pipeline.berlin import BERLIN, DAY, HOUR, from_instant, to_instant

SECOND = 1_000_000
_MINUTE = 60 * SECOND

_CLOCK_STEPS = [s * SECOND for s in (1, 2, 5, 10, 15, 30)] + [m * _MINUTE for m in (1, 2, 5, 10, 15, 30, 60)]
_HOUR_STEPS = (2, 3, 6, 12)
_DAY_STEPS = (1, 2, 5, 10)
_MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200)


def ticks(start: int, end: int, *, most: int) -> dict[int, str]:
    """Choose ticks at round times of Berlin's clock.

    Args:
        start: The left end of the axis in microseconds since the epoch.
        end: The right end, after the start.
        most: How many ticks there may be.

    Returns:
        Labels by instant, ascending.
    """
    span = end - start
    for step in _CLOCK_STEPS:
        if span / step <= most:
            first = -(-start // step) * step  # Berlin's offsets are whole hours
            return {instant: label(instant) for instant in range(first, end + 1, step)}
    units = ((HOUR, _HOUR_STEPS, _hours), (DAY, _DAY_STEPS, _days), (30 * DAY, _MONTH_STEPS, _months))
    wide_enough = (
        (places, step) for unit, steps, places in units for step in steps if span / (step * unit) <= most
    )
    places, step = next(wide_enough, (_months, _MONTH_STEPS[-1]))
    instants = sorted({to_instant(place) for place in places(start, end, step)})
    return {instant: label(instant) for instant in instants if start <= instant <= end}


def label(instant: int) -> str:
    """Return what a tick says: the time of the day, and at midnight the day, the month or the year.

    The times of the repeated hour name the pass.
    """
    time = from_instant(instant)
    if (time.hour, time.minute, time.second) != (0, 0, 0):
        text = f"{time:%H:%M:%S}" if time.second else f"{time:%H:%M}"
        return f"{text} {time:%Z}" if _is_repeated(time) else text
    if time.day != 1:
        return f"{time.day} {time:%b}"
    return f"{time:%Y}" if time.month == 1 else f"{time:%b}"


def _is_repeated(time: datetime) -> bool:
    return time.replace(fold=0).utcoffset() != time.replace(fold=1).utcoffset()


def _hours(start: int, end: int, step: int) -> Iterator[datetime]:
    for day in _days(start, end, 1):
        yield from (day.replace(hour=hour) for hour in range(0, 24, step))


def _days(start: int, end: int, step: int) -> Iterator[datetime]:
    """Yield midnights; with a greater step those of the 1st, 6th, 11th … so that they stay when one moves."""
    day = from_instant(start).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    last = from_instant(end)
    while day <= last:
        # A 31st would crowd the following 1st.
        if (day.day - 1) % step == 0 and (step == 1 or day.day <= 31 - step / 2):
            yield day
        day += timedelta(days=1)  # of the clock


def _months(start: int, end: int, step: int) -> Iterator[datetime]:
    first, last = from_instant(start), from_instant(end)
    for month in range(first.year * 12 // step * step, last.year * 12 + 12, step):
        year, index = divmod(month, 12)
        if 1 <= year <= 9999:  # noqa: PLR2004 - a datetime's years
            yield datetime(year, index + 1, 1, tzinfo=BERLIN)
