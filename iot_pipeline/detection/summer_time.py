"""The clock that people live by: their days begin an hour earlier in summer, seen from UTC."""

import numpy as np
import numpy.typing as npt

_HOUR = 3600.0


def clock_changes(origin: np.datetime64, span: float) -> npt.NDArray[np.float64]:
    """Give when European clocks change: on the last Sundays of March and October at 01:00 UTC.

    Returns:
        Seconds since the origin, float64[2k], ascending: the beginning and the end of the summer of each year
        in the span, which is in seconds, too; empty where the span has no change.
    """
    first = origin.astype("datetime64[Y]")
    last = (origin + np.timedelta64(int(span), "s")).astype("datetime64[Y]")
    years = np.arange(first, last + 1)
    months = np.column_stack((years + np.timedelta64(3, "M"), years + np.timedelta64(10, "M"))).ravel()
    sundays = np.busday_offset(months.astype("datetime64[D]") - 1, 0, roll="backward", weekmask="Sun")
    changes = (sundays + np.timedelta64(1, "h") - origin).astype("timedelta64[s]").astype(np.float64)
    return changes if np.any((changes > 0) & (changes < span)) else np.empty(0)


def clock_seconds(
    seconds: npt.NDArray[np.float64], changes: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Give what a clock shows at seconds since the origin, float64[n], that goes an hour ahead in summer."""
    if not len(changes):
        return seconds
    return seconds + _HOUR * (np.searchsorted(changes, seconds, side="right") % 2)
