"""Decides which naive rows in October's repeated hour belong to its second pass.

So far their instants are those of the first pass; in the second pass they are an hour later. Four kinds of
evidence are considered in this order, and each decides the rows it can:

1. The sensor's own rows in file order. If its clock steps back by half an hour or more, the second pass has
   begun. A row in the hour that has an offset tells the pass of the rows around it.
2. The file's other sensors, if its rows are in time order: a row belongs to the pass that is nearer to the
   decided rows around it. A single late reading does not outvote the sensors whose clocks run on.
3. A smaller step back by the sensor's own clock, if it is larger than jitter (a quarter of the sampling
   interval) and implies a plausible gap (at most four sampling intervals).
4. The period that the file covers: the pass nearer to the instants known by now, else the first pass.
"""

import numpy as np
import numpy.typing as npt

from iot_pipeline.berlin import HOUR

MARGIN = HOUR
"""How far before and after the repeated hour rows count as evidence."""
USUAL_SAMPLING = HOUR // 4
"""The sampling interval of a sensor with too few rows to tell."""
NEIGHBOURS = 4

Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


def tell_passes(
    sensors: npt.NDArray[np.integer], instants: Integers, is_open: Flags, *, hour: int, first: int, last: int
) -> Flags:
    """Decide which naive rows in a repeated hour belong to its second pass.

    Args:
        sensors: int[n], the sensor of each row in and near the hour, in file order.
        instants: int64[n], microseconds since the epoch; those of open rows mean the first pass.
        is_open: bool[n], whether the row's time is naive and in the hour.
        hour: The instant at which the first pass begins.
        first: The earliest instant of the file's other rows.
        last: The latest one; less than ``first`` if there are no other rows.

    Returns:
        bool[n], true for open rows that belong to the second pass.
    """
    rows = _Rows(sensors, instants, is_open, hour)
    rows.decide_by_own_clock()
    rows.decide_by_other_sensors()
    rows.decide_by_small_steps()
    rows.decide_by_coverage(first, last)
    second = np.empty(len(sensors), bool)
    second[rows.places] = rows.second
    return second & is_open


class _Rows:
    """Rows sorted by sensor, each sensor's in file order.

    Attributes:
        places: Each row's position in the file.
        second: Whether the row belongs to the second pass; valid once decided.
        decided: Whether the row's pass is decided; from the start for rows that are not open.
    """

    def __init__(
        self, sensors: npt.NDArray[np.integer], instants: Integers, is_open: Flags, hour: int
    ) -> None:
        self.places = np.argsort(sensors, kind="stable")
        self.sensors, self.times = sensors[self.places], instants[self.places] - hour
        self.is_open = is_open[self.places]
        self.second = ~self.is_open & (self.times >= HOUR)
        self.decided = ~self.is_open
        self._hour = hour
        self._starts = np.flatnonzero(np.diff(self.sensors, prepend=-1))
        self._sizes = np.diff(np.append(self._starts, len(self.sensors)))

    def decide_by_own_clock(self) -> None:
        """Decide by a sensor's rows with an offset and by large steps back of its clock."""
        index = np.arange(len(self.times))
        is_aware = ~self.is_open & (self.times >= 0) & (self.times < 2 * HOUR)
        self._decide(index > self._first(is_aware & self.second), second=True)
        self._decide(index < self._last(is_aware & ~self.second), second=False)
        before, after = self._open_pairs()
        is_step = np.zeros(len(index), bool)
        is_step[after] = self.times[before] - self.times[after] >= HOUR // 2
        first_step, last_step = self._first(is_step), self._last(is_step)
        # Rows between two steps back may be of either pass: some of the first pass arrived late.
        is_late = (index < last_step) & (self.times >= HOUR // 2)
        self._decide(last_step >= 0, second=(index >= first_step) & ~is_late)

    def decide_by_other_sensors(self) -> None:
        """Decide by the decided rows around a row, if the file is in time order."""
        if self.decided.all() or len(self._starts) == 1 or not self._are_in_order():
            return
        in_second = self.decided & self.second & (self.times < np.where(self.is_open, HOUR, 2 * HOUR))
        boundary = self._boundary(in_second)
        before, after = self._open_pairs()
        spans = (self.places[before] < boundary) & (self.places[after] >= boundary)
        before, after = before[spans], after[spans]
        goes_on = self.times[after] > self.times[before]
        has_sign = self._last(in_second & ~self.is_open)[self._starts] >= 0
        n_for = (~goes_on).sum() + has_sign.sum()
        if n_for == 0 or goes_on.sum() > n_for:
            return
        if not in_second.any():
            self._decide_at(before[~goes_on], second=False)
            self._decide_at(after[~goes_on], second=True)
        known = np.flatnonzero(self.decided)
        known = known[np.argsort(self.places[known])]
        undecided = np.flatnonzero(~self.decided)
        nearest = np.searchsorted(self.places[known], self.places[undecided])[:, None]
        around = np.clip(nearest + np.arange(NEIGHBOURS) - NEIGHBOURS // 2, 0, len(known) - 1)
        clock = np.median(self._known_times()[known[around]], axis=1)
        times = self.times[undecided]
        self._decide_at(undecided, second=np.abs(times + HOUR - clock) < np.abs(times - clock))

    def decide_by_small_steps(self) -> None:
        """Decide by a sensor's largest step back, if it is larger than jitter."""
        for start, size in zip(self._starts, self._sizes, strict=True):
            of_sensor = np.arange(start, start + size)
            undecided = of_sensor[~self.decided[of_sensor]]
            if len(undecided) < 2:  # noqa: PLR2004
                continue
            steps = self.times[undecided[:-1]] - self.times[undecided[1:]]
            step = int(steps.max())
            intervals = np.diff(self.times[of_sensor[self.times[of_sensor] < HOUR]])
            sampling = np.median(intervals[intervals > 0]) if (intervals > 0).any() else USUAL_SAMPLING
            if step > sampling / 4 and HOUR - step <= 4 * sampling:
                self._decide_at(undecided, second=np.arange(len(undecided)) > steps.argmax())

    def decide_by_coverage(self, first: int, last: int) -> None:
        """Decide a sensor's remaining rows together, by the period that the file covers."""
        covered = self._known_times()[self.decided]
        if first <= last:
            covered = np.append(covered, [first - self._hour, last - self._hour])
        if len(covered) == 0:
            return
        outside = [
            np.maximum(covered.min() - times, 0) + np.maximum(times - covered.max(), 0)
            for times in (self.times, self.times + HOUR)
        ]
        is_nearer = np.add.reduceat((outside[0] - outside[1]) * ~self.decided, self._starts) > 0
        self._decide(np.repeat(is_nearer, self._sizes), second=True)

    def _decide(self, mask: Flags, *, second: Flags | bool) -> None:
        """Decide the undecided rows of a mask."""
        at = np.flatnonzero(mask & ~self.decided)
        self._decide_at(at, second=second[at] if isinstance(second, np.ndarray) else second)

    def _decide_at(self, at: npt.NDArray[np.intp], *, second: Flags | bool) -> None:
        self.second[at] = second
        self.decided[at] = True

    def _known_times(self) -> Integers:
        return np.where(self.is_open & self.second, self.times + HOUR, self.times)

    def _open_pairs(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the positions of consecutive open rows of the same sensor."""
        found = np.flatnonzero(self.is_open)
        same = self.sensors[found[1:]] == self.sensors[found[:-1]]
        return found[:-1][same], found[1:][same]

    def _first(self, mask: Flags) -> npt.NDArray[np.intp]:
        """Return for each row the position of its sensor's first row in a mask; n if there is none."""
        n = len(mask)
        positions = np.where(mask, np.arange(n), n)
        return np.repeat(np.minimum.reduceat(positions, self._starts), self._sizes)

    def _last(self, mask: Flags) -> npt.NDArray[np.intp]:
        """Return for each row the position of its sensor's last row in a mask; -1 if there is none."""
        positions = np.where(mask, np.arange(len(mask)), -1)
        return np.repeat(np.maximum.reduceat(positions, self._starts), self._sizes)

    def _are_in_order(self) -> bool:
        """Return whether the file is in time order rather than sensor by sensor."""
        by_place = np.empty(len(self.places), self.sensors.dtype)
        by_place[self.places] = self.sensors
        if np.count_nonzero(np.diff(by_place)) < len(self._starts):  # sensor by sensor
            return False
        is_before, is_after = self.times < 0, self.times >= 2 * HOUR
        middle = np.median(self.places[~is_before & ~is_after])
        n_astray = (is_before & (self.places > middle)).sum() + (is_after & (self.places < middle)).sum()
        return bool(8 * n_astray <= is_before.sum() + is_after.sum())

    def _boundary(self, in_second: Flags) -> float:
        """Return the position in the file at which the second pass seems to begin.

        It leaves the fewest decided rows on the wrong side. If no row is known to be in the second pass, it
        is the largest step back between consecutive rows, provided that is half an hour or more.
        """
        has_answer = in_second.any()
        rows = np.flatnonzero(self.decided if has_answer else self.is_open)
        rows = rows[np.argsort(self.places[rows])]
        if has_answer:
            wrong = np.cumsum(np.where(self.second[rows], 1, -1))
            at = wrong.argmin() + 1 if wrong.min() < 0 else 0
        else:
            steps = self.times[rows[:-1]] - self.times[rows[1:]]
            at = steps.argmax() + 1 if len(steps) and steps.max() >= HOUR // 2 else len(rows)
        return float(self.places[rows[at]]) if at < len(rows) else np.inf
