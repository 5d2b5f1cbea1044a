"""What is usual at a time of the day in the weeks around: means over days and hours by running sums."""

import numpy as np

from iot_pipeline.detection.cycles import DAY
from iot_pipeline.detection.prepare import Readings
from iot_pipeline.detection.types import FloatArray, IntArray

_CELLS = (8, 96)  # a day has at least and at most
_DAYS = 10  # before and after
_FEW = 20.0  # readings at a time of the week, which count as much as all days' together
_LONG = 2 * DAY  # a longer pause is shortened


def _without_pauses(seconds: FloatArray) -> FloatArray:
    """Shorten pauses of more than two days to less, and keep the time of the day; float64[n], ascending."""
    steps = np.diff(seconds, prepend=0.0)
    long = steps > _LONG
    return seconds - np.cumsum(np.where(long, (steps // DAY - 1.0) * DAY, 0.0)) if long.any() else seconds


class DayCells:
    """Readings divided by day and by time of the day.

    Attributes:
        seconds: float64, shape (n,), their time without long pauses.
    """

    def __init__(self, readings: Readings) -> None:
        """Divide n readings."""
        self.seconds = _without_pauses(readings.seconds)
        parts = int(np.clip(round(DAY / max(readings.step, 1e-6)), *_CELLS))
        self._shape = int(self.seconds[-1] // DAY) + 1, parts
        self._cell: IntArray = np.minimum(
            (self.seconds * (parts / DAY)).astype(np.intp), self._shape[0] * parts - 1
        )
        self._count = self._totals(None)
        self._counts: dict[int, tuple[FloatArray, ...]] = {}

    def local_mean(self, values: FloatArray, *, hours: int, pseudo: tuple[float, float]) -> FloatArray:
        """Average over the ten days around, without the day itself: no event hides itself; float64[n].

        Means of few readings are drawn towards those of many: that of a time of the week to that of all days,
        this one to that of all hours, and this one to that of the whole (empirical Bayes: Efron & Morris,
        JASA 68, 1973).

        Args:
            values: float64, shape (n,).
            hours: How many cells before and after belong to a time of the day.
            pseudo: With how many readings the mean of the whole counts, and that of all hours.
        """
        total = self._totals(values)
        whole = total.sum() / max(self._count.sum(), 1.0)
        if hours not in self._counts:
            self._counts[hours] = _around(self._count, hours)
        sums, counts = _around(total, hours), self._counts[hours]
        by_day = (sums[0] + pseudo[0] * whole) / (counts[0] + pseudo[0])
        by_hour = (sums[1] + pseudo[1] * by_day) / (counts[1] + pseudo[1])
        by_week = (sums[2] + _FEW * by_hour) / (counts[2] + _FEW)
        at_readings: FloatArray = by_week.ravel().take(self._cell)
        return at_readings

    def _totals(self, values: FloatArray | None) -> FloatArray:
        size = self._shape[0] * self._shape[1]
        totals: FloatArray = np.bincount(self._cell, values, size).astype(np.float64)
        return totals.reshape(self._shape)


def _around(cells: FloatArray, hours: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sum over the days around, all hours and those around each, and those of the same day of the week."""
    by_hour = _over_hours(cells, hours)
    return _over_days(cells.sum(axis=1, keepdims=True)), _over_days(by_hour), _over_weeks(by_hour)


def _over_weeks(rows: FloatArray) -> FloatArray:
    """Sum the rows one to three weeks before and after each one."""
    sums = np.zeros_like(rows)
    for days in (7, 14, 21):
        sums[days:] += rows[:-days]
        sums[:-days] += rows[days:]
    return sums


def _over_days(rows: FloatArray) -> FloatArray:
    """Sum the rows of the days around each one, without its own."""
    return np.maximum(sums_around(rows, _DAYS) - rows, 0.0)


def sums_around(rows: FloatArray, width: int) -> FloatArray:
    """Sum so many rows before and after each one, itself and as many as there are; the shape of the rows."""
    total = np.cumsum(np.pad(rows, [(width + 1, width)] + [(0, 0)] * (rows.ndim - 1)), axis=0)
    return total[2 * width + 1 :] - total[: -2 * width - 1]


def _over_hours(rows: FloatArray, cells: int) -> FloatArray:
    """Sum the cells around each time of the day; the day is a circle."""
    nothing = np.zeros((len(rows), 1))
    total = np.cumsum(np.hstack((nothing, rows[:, -cells:], rows, rows[:, :cells])), axis=1)
    return total[:, 2 * cells + 1 :] - total[:, : rows.shape[1]]
