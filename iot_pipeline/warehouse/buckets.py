"""Readings summed up by quarters of an hour, hours, days, weeks or months of Berlin's clock."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from iot_pipeline.berlin import HOUR, TIME_ZONE

Every = Literal["15min", "1h", "1d", "1w", "1mo"]
SUMMARY = ("n", "mean", "min", "max", "first", "last")

_WIDTHS = {"15min": HOUR // 4, "1h": HOUR}
_MIDNIGHTS = {"1d": "D", "1w": "W-MON", "1mo": "MS"}
"""The name that pandas has for the days on which a bucket begins."""


def summarize(
    instants: npt.NDArray[np.int64], values: npt.NDArray[np.float64], every: Every
) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[Any]]]:
    """Sum up the readings of each bucket that has any.

    Args:
        instants: int64[n], microseconds since the epoch, ascending.
        values: float64[n].
        every: How long a bucket is.

    Returns:
        The instants at which the buckets begin, int64[k], and by name the columns n (int64[k]), mean, min,
        max, first and last (float64[k]).
    """
    if not len(instants):
        return instants, {name: instants if name == "n" else values for name in SUMMARY}
    starts = bucket_starts(instants, every)
    begins = np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))
    ends = np.append(begins[1:], len(starts))
    n = ends - begins
    least, greatest = np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)
    # Divided before they are added, so that error values such as 1.8e308 don't overflow.
    mean = np.add.reduceat(values / np.repeat(n, n), begins).clip(least, greatest)
    summary = (n, mean, least, greatest, values[begins], values[ends - 1])
    return starts[begins], dict(zip(SUMMARY, summary, strict=True))


def bucket_starts(instants: npt.NDArray[np.int64], every: Every) -> npt.NDArray[np.int64]:
    """Return for each instant the one at which its bucket begins.

    Berlin's offset is whole hours, so quarters and hours are those of UTC, and the hour that the clock shows
    twice is two buckets. Days begin at midnight and have 23, 24 or 25 hours, weeks begin on Monday.

    Args:
        instants: int64[n], microseconds since the epoch, ascending; at least one.
        every: How long a bucket is.
    """
    if every in _WIDTHS:
        return instants - instants % _WIDTHS[every]
    first, last = (
        pd.to_datetime(instants[[0, -1]], unit="us", utc=True).tz_convert(TIME_ZONE).tz_localize(None)
    )
    before = pd.Timedelta(days=31)  # as long as the longest bucket
    midnights = pd.date_range((first - before).normalize(), last, freq=_MIDNIGHTS[every])
    edges = midnights.tz_localize(TIME_ZONE).as_unit("us").asi8
    return edges[np.searchsorted(edges, instants, side="right") - 1]
