"""Collective anomalies: runs of readings that are anomalous together."""

from dataclasses import dataclass, replace

import numpy as np

from iot_pipeline.detection.day_cells import DayCells
from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.types import FloatArray

# The tests for a shifted mean: the shift in standard deviations, and how coarse a search does for such runs.
_SHIFTS = ((1.2, 4), (3.0, 1))
_SPREAD = 2.5  # the ratio of standard deviations that the test for more noise is made for
_FALSE_ALARMS = 0.005  # per sensor and test
_WINDOW = 2048  # readings that are searched first for the start or the end of a run
_MARGIN = 25  # readings around an event within which its ends are sought
LONGEST_BURST = 100
_CLIP = 30.0  # standard deviations, beyond which a reading tells no more about a run
_ONE_SIDED = 1.5  # times their own spread that readings lie away from zero at least
_IDLE = 1e-3  # what a reading costs that tells nothing
_RAMP_COST = 6.0  # a ramp has one parameter more than a shift and has to win clearly
_SHORTEST_STUCK = 5
_MOST_REPEATS = 0.95
_FEW_REPEATS = 0.02  # of the readings
_BETWEEN = 1_500  # readings on average between two long runs of equal values: more frequent ones are natural,
NATURAL = 5  # but so many say nothing yet about a sensor's nature,
_THEIR_EVIDENCE = 1.5  # times the logarithm of how rare the next one is, which it may count at most
LARGEST_SHARE = 0.05  # of the readings; where more would be flagged, the model explains too little
ALWAYS_POSSIBLE = 10  # readings that may be flagged however short the series


@dataclass(frozen=True)
class Run:
    """Readings start to stop - 1 with the evidence against chance, as a log-likelihood ratio."""

    start: int
    stop: int
    kind: str
    evidence: float

    @property
    def score(self) -> float:
        """The evidence as the standard deviations of one Gaussian reading."""
        return float(np.sqrt(2.0 * self.evidence))


def _page_runs(gains: FloatArray, threshold: float, stride: int = 1) -> list[tuple[int, int, float]]:
    """Find the runs in which log-likelihood ratios add up beyond a threshold: start, stop and climb of each.

    A run starts where the sum was least, and ends where it was greatest before it fell by the threshold.
    Source: Page, "Continuous inspection schemes", Biometrika 41 (1954). Gains, float64[n], are negative on
    average for regular readings; only every n-th sum is looked at by a stride of n, and ends are as coarse.
    """
    total = np.concatenate(([0.0], np.cumsum(gains)))[::stride].copy()
    upside_down = -total
    runs = []
    stop = 0
    while stop < len(total) - 1:
        start, crossing = _least_before_climb(total, stop, threshold)
        if crossing == len(total):
            break
        stop, _ = _least_before_climb(upside_down, crossing, threshold)
        runs.append((start * stride, stop * stride, float(total[stop] - total[start])))
    return runs


def _least_before_climb(total: FloatArray, begin: int, threshold: float) -> tuple[int, int]:
    """Find where a sum is least before it has climbed by the threshold, and where it has; else its length."""
    reach = _WINDOW
    while True:
        rest = total[begin : begin + reach]
        climbed = rest - np.minimum.accumulate(rest) > threshold
        if climbed.any():
            rest = rest[: int(np.argmax(climbed)) + 1]
            return begin + int(np.argmin(rest)), begin + len(rest) - 1
        if len(rest) < reach:
            return begin + int(np.argmin(rest)), len(total)
        reach *= 4


def collective_runs(scores: FloatArray, z: FloatArray, deflation: float) -> list[Run]:
    """Find shifts of the mean and of the spread, with their ends where the evidence is greatest.

    Args:
        scores: float64, shape (n,), Gaussian scores, zero where another test has decided.
        z: float64, shape (n,), residuals in local standard deviations.
        deflation: By how much sums of scores vary more than independent ones.
    """
    threshold = float(np.log(2.0 * len(scores) / _FALSE_ALARMS)) + 1.0
    # One reading alone must not make a run: its gain is bounded to less than half of the threshold.
    spread_gain = 1.0 - _SPREAD**-2
    bound = np.sqrt((0.4 * threshold + np.log(_SPREAD)) * 2.0 / spread_gain)
    gains = np.minimum(scores**2, bound**2) * (spread_gain / (2 * deflation)) - np.log(_SPREAD) / deflation
    found = _page_runs(gains, threshold, 4)
    for shift, stride in _SHIFTS:
        bound = 0.45 * threshold / shift + shift / 2
        for sign in (1.0, -1.0):
            gains = np.minimum(sign * scores, bound) * (shift / deflation) - shift**2 / (2 * deflation)
            found += _page_runs(gains, threshold, stride)
    runs: list[Run] = []
    for start, stop, climb in _merged(found):
        run = _sharpened(scores, z, start, stop, climb)
        first = max(run.start, runs[-1].stop if runs else 0)
        if run.stop > first:
            runs.append(replace(run, start=first))
    return runs


def _merged(found: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Unite runs that overlap."""
    united: list[tuple[int, int, float]] = []
    for start, stop, climb in sorted(found):
        if united and start < united[-1][1]:
            first, last, evidence = united[-1]
            united[-1] = (first, max(last, stop), max(evidence, climb))
        else:
            united.append((start, stop, climb))
    return united


def _sharpened(scores: FloatArray, z: FloatArray, start: int, stop: int, climb: float) -> Run:
    """Describe a run by a shift, more spread or a ramp, whichever fits best, and move its ends to match."""
    low, high = max(start - _MARGIN, 0), min(stop + _MARGIN, len(scores))
    around = np.clip(scores[low:high], -_CLIP, _CLIP)
    part = around[start - low : stop - low]
    mean = float(np.copysign(2.0, part.sum()))
    for _ in range(2):
        bounded = np.clip(around, -abs(mean) - 3.0, abs(mean) + 3.0)
        shift = _best_part(bounded * mean - mean**2 / 2, low, "level_shift")
        mean = float(np.median(scores[shift.start : shift.stop])) if shift.evidence > 0 else mean
    spread = max(float(np.sqrt(np.mean(part**2))), 1.01)
    gains = np.minimum(around**2, 6.0 * spread**2) * (1.0 - spread**-2) / 2 - np.log(spread)
    noisy = _best_part(gains, low, "variance")
    if _is_one_sided(around[noisy.start - low : noisy.stop - low]) or _is_one_sided(
        z[noisy.start : noisy.stop]
    ):
        noisy = shift  # the first reading of a shift that lasts may speak louder for noise than all others
    best = max((shift, noisy, _ramp(scores, z, start, stop)), key=lambda run: run.evidence)
    short = best.kind == "level_shift" and best.stop - best.start <= LONGEST_BURST
    return Run(best.start, best.stop, "burst" if short else best.kind, max(best.evidence, climb))


def _is_one_sided(scores: FloatArray) -> bool:
    """Say whether readings lie around a level of their own rather than around what was expected."""
    level = float(np.median(scores))
    return abs(level) > _ONE_SIDED * 1.4826 * float(np.median(np.abs(scores - level)))


def _best_part(gains: FloatArray, offset: int, kind: str) -> Run:
    """Find the run of readings whose gains add up to most."""
    total = np.concatenate(([0.0], np.cumsum(gains)))
    last = int(np.argmax(total - np.minimum.accumulate(total)))
    first = int(np.argmin(total[: last + 1]))
    return Run(offset + first, offset + last, kind, float(total[last] - total[first]))


def _ramp(scores: FloatArray, z: FloatArray, start: int, stop: int) -> Run:
    """Describe a run by a line that begins or ends at zero, by iterated fits within its improving ends.

    Heavy tails bend the scores, so that the line is fitted to the deviations themselves.
    """
    for _ in range(2):
        length = stop - start
        mean, slope, _ = _line(np.clip(z[start:stop], -_CLIP, _CLIP))
        low, high = max(start - length // 2, 0), min(stop + max(length // 2, _MARGIN), len(z))
        line = mean + slope * (np.arange(low, high) - (start + stop - 1) / 2)
        line *= line * mean > 0
        part = _best_part(np.clip(z[low:high], -_CLIP, _CLIP) * line - line**2 / 2 - _IDLE, low, "drift")
        if part.stop - part.start < 3:  # noqa: PLR2004  no line goes through fewer
            break
        start, stop = part.start, part.stop
        climbing = mean * slope > 0
        side = np.flatnonzero(line)
        if climbing:
            start = min(start, low + int(side[0]))
        else:
            stop = max(stop, low + int(side[-1]) + 1)
    mean, slope, _ = _line(np.clip(z[start:stop], -_CLIP, _CLIP))
    if abs(slope) * (stop - start) < abs(mean):
        return Run(start, stop, "drift", 0.0)  # it neither begins nor ends near zero
    bound = abs(float(np.median(scores[start:stop]))) + 3.0
    evidence = _line(np.clip(scores[start:stop], -bound, bound))[2] - _RAMP_COST
    return Run(start, stop, "drift", evidence)


def _line(y: FloatArray) -> tuple[float, float, float]:
    """Fit a line: its mean, its slope per reading and its log-likelihood ratio against zero."""
    n = len(y)
    place = np.arange(n) - (n - 1) / 2
    across = max(float(place @ place), 1.0)
    mean, slope = float(y.mean()), float(place @ y) / across
    return mean, slope, (n * mean**2 + across * slope**2) / 2


def stuck_runs(readings: Readings, cells: DayCells | None = None, *, limit: float = 0.0) -> list[Run]:
    """Tell of each run of equal values how rare it is among the sensor's own repeats, here and at this hour.

    A repeat is as likely as repeats are nearby, or as after another repeat, whichever is more: a frozen river
    repeats itself. Then lengths are geometric (Erdos & Renyi, "On a new law of large numbers", 1970).

    Args:
        readings: n of them.
        cells: Their days and times of the day; made where there is anything to judge.
        limit: The evidence that at least one run must be able to have; else there are none.
    """
    values = readings.values
    n = len(values)
    equal = np.diff(values, prepend=np.nan) == 0
    starts = np.flatnonzero(~equal)
    lengths = np.diff(starts, append=n)
    long = lengths >= _SHORTEST_STUCK
    if not long.any() or np.count_nonzero(equal) > _MOST_REPEATS * n:
        return []  # a sensor that mostly holds its value isn't stuck
    # Long runs are what is asked about: they have no more say than others in how likely a run goes on, and
    # little where there are no others.
    bounded = np.minimum(lengths, _SHORTEST_STUCK + 1)
    again = np.maximum(bounded - 2, 0).sum() / (np.sum(bounded - 1) + max(_FEW_REPEATS * n, 20.0))
    if (lengths.max() - 1) * -np.log(max(again, 1.0 / n)) <= limit:
        return []
    cells = cells or DayCells(readings)
    twice = equal & np.append(False, equal[:-1])
    nearby, nearby_twice = (
        cells.local_mean(each.astype(np.float64), hours=4, pseudo=(20.0, 20.0)) for each in (equal, twice)
    )
    nearby = np.maximum(nearby, (nearby_twice + _FEW_REPEATS * again) / (nearby + _FEW_REPEATS))
    surprise = -np.log(np.clip(np.maximum(nearby, again), 1.0 / n, 1.0))
    total = np.concatenate(([0.0], np.cumsum(np.where(equal, surprise, 0.0))))
    starts, lengths = starts[long], lengths[long]
    evidence = total[starts + lengths] - total[starts]
    return [
        Run(int(start), int(start + length), "stuck", float(each))
        for start, length, each in zip(starts, lengths, evidence, strict=True)
    ]


def less_where_usual(runs: list[Run], n: int) -> list[Run]:
    """Divide the evidence of runs among n readings, since a sensor that has many has them by its nature."""
    often = max(n // _BETWEEN, NATURAL)
    if len(runs) <= often:
        return runs
    natural = sorted(run.evidence for run in runs)[-often - 1]
    factor = max(natural / (_THEIR_EVIDENCE * float(np.log(n / often))), 1.0)
    return [replace(run, evidence=run.evidence / factor) for run in runs]


def gap_runs(seconds: FloatArray) -> list[Run]:
    """Find time steps longer than chance allows; the run is the first reading after.

    Steps beyond the 99th percentile are compared with an exponential tail (Pickands, "Statistical inference
    using extreme order statistics", Annals of Statistics 3, 1975), and with five times the median.

    Args:
        seconds: float64, shape (n,), ascending.
    """
    steps = np.diff(seconds)
    if len(steps) < 20:  # noqa: PLR2004  too few steps to know what is usual
        return []
    middle, high = np.quantile(sampled(steps), (0.5, 0.99))
    excess = steps[steps > high] - high
    tail = float(np.median(excess)) / np.log(2) if len(excess) else 0.0
    limit = max(5.0 * middle, 1.5 * high, high + min(tail, high) * np.log(0.01 * len(steps) / 1e-3))
    return [
        Run(int(i) + 1, int(i) + 2, "gap", float(min(20.0 * steps[i] / limit, 1e4)))
        for i in np.flatnonzero(steps > limit)
    ]
