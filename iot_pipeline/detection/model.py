"""The regular behaviour of a sensor: cycles and the best trend, fitted in turns."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.blocks import block_index, condense, equal_parts, row_medians
from iot_pipeline.detection.cycles import A_FEW_DAYS, DAY, MANY_DAYS, WEEK, find_periods, fit_cycles, repeats
from iot_pipeline.detection.piecewise import piecewise_trends
from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.summer_time import clock_changes
from iot_pipeline.detection.trends import Trend, ranked, smooth_trends
from iot_pipeline.detection.types import Curve, Cycle, FloatArray

YEAR = 365.25 * DAY
_COARSE = 24  # parts of the span whose medians make a first trend
_TURNS = 8
_CLEARLY = 10.0  # the gain in log-likelihood, doubled, from which cycles follow summer time
_WIDE, _NARROW = 4.0, 2.5  # deviations at which readings are clipped before and after the trend is known
_MUCH = 0.08  # the share of clipped readings up to which a cycle is believed
_NODES = 2048  # of a smooth trend's polygon
_NO_CHANGES = np.empty(0)  # of the clock


@dataclass(frozen=True, eq=False)
class Rhythm:
    """What repeats in n readings, found before their trend is known.

    Attributes:
        periods: In seconds.
        rough: float64, shape (n,), the values without a coarse trend.
        cycles: Fitted to `rough`.
        season: float64, shape (n,), their sum at the readings; 0 without any.
    """

    periods: tuple[float, ...]
    rough: FloatArray
    cycles: tuple[Cycle, ...]
    season: FloatArray | float


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model in scaled units and time in [-1, 1].

    Attributes:
        trends: All candidates, the chosen one first.
        curve: The chosen trend.
        cycles: What repeats, over seconds.
        expected: float64, shape (n,), the model at the readings.
    """

    trends: list[Trend]
    curve: Curve
    cycles: tuple[Cycle, ...]
    expected: FloatArray


def find_rhythm(readings: Readings) -> Rhythm:
    """Find what repeats, and fit it to what a trend leaves that takes no part of it away."""
    values = readings.values
    index = block_index(len(values))
    centres, medians = readings.x[index].mean(axis=1), row_medians(values[index])

    def without_trend(parts: int) -> FloatArray:
        return values - _coarse_trend(centres, medians, parts)(readings.x)

    days, weeks = int(readings.span // DAY), int(readings.span // WEEK)
    rough = without_trend(min(days, _COARSE) if days >= A_FEW_DAYS else _COARSE)  # no night is a trend
    clipped = _clipped(rough, _WIDE)
    periods = find_periods(readings, clipped)
    if A_FEW_DAYS <= days < MANY_DAYS and DAY not in periods and repeats(readings, clipped, DAY):
        periods = (DAY,)
    if weeks and (WEEK in periods or periods == (DAY,)):
        by_week = without_trend(min(weeks, _COARSE))  # no weekend is a trend
        if WEEK not in periods and repeats(readings, _clipped(by_week, _WIDE), WEEK):
            periods = (DAY, WEEK)
        rough = by_week if WEEK in periods else rough
    return Rhythm(periods, rough, *_fit_season(readings, rough, periods, deviations=_WIDE))


def fit_model(readings: Readings, rhythm: Rhythm) -> Fit:
    """Fit the trend to what the cycles leave, and the cycles once more to what the trend leaves.

    Such turns are backfitting (Hastie & Tibshirani, "Generalized Additive Models", 1990). Piecewise lines are
    tried only where no smooth trend is adequate. Days and weeks follow UTC, or the clock that goes ahead in
    summer where that fits clearly better.
    """
    values, periods, rough, season = readings.values, rhythm.periods, rhythm.rough, rhythm.season
    changes = _NO_CHANGES
    summers = clock_changes(readings.origin, readings.span) if rhythm.cycles else changes
    if len(summers):
        _, by_clock = _fit_season(readings, rough, periods, deviations=_WIDE, changes=summers)
        left, left_by_clock = (np.sum(_clipped(rough - each, _WIDE) ** 2) for each in (season, by_clock))
        if len(values) * np.log(left / max(left_by_clock, 1e-300)) > _CLEARLY:
            changes, season = summers, by_clock
    blocks = condense(readings, values - season)

    trends = smooth_trends(blocks, np.pi * readings.span / YEAR)
    if not trends[0].is_adequate():
        trends = ranked(trends + piecewise_trends(blocks, readings, values - season))
    curve = trends[0].evaluate
    if not isinstance(curve, Curve):
        grid = np.linspace(-1.0, 1.0, _NODES + 1)
        curve = Curve(grid, curve(grid))
    trend = curve(readings.x)
    cycles, season = _fit_season(
        readings, values - trend, periods, season, deviations=_NARROW, changes=changes
    )
    return Fit(trends, curve, cycles, trend + season)


def _fit_season(
    readings: Readings,
    residual: FloatArray,
    periods: tuple[float, ...],
    season: FloatArray | float = 0.0,
    *,
    deviations: float,
    changes: FloatArray = _NO_CHANGES,
) -> tuple[tuple[Cycle, ...], FloatArray | float]:
    """Fit the cycles to residuals that are clipped around the last fit, until little is clipped any more.

    Clips at so many robust standard deviations around `season`, what is known of the cycles before. Returns
    the cycles and their sum at the readings.
    """
    cycles: tuple[Cycle, ...] = ()
    for _ in range(_TURNS if periods else 0):
        rest = residual - season
        clipped = _clipped(rest, deviations)
        cycles = fit_cycles(readings, season + clipped, periods, changes)
        season = sum(cycle(readings.seconds) for cycle in cycles)
        if np.count_nonzero(clipped != rest) < _MUCH * len(rest):
            break
    return cycles, season


def _coarse_trend(centres: FloatArray, medians: FloatArray, parts: int) -> Curve:
    """Join the medians of parts of the span, and go straight on to its ends."""
    parts = min(parts, len(centres))
    rows = equal_parts(len(centres), parts)
    x, level = centres[rows].mean(axis=1), row_medians(medians[rows])
    if parts > 1:
        steps = np.diff(x)
        slope = np.divide(np.diff(level), steps, out=np.zeros(parts - 1), where=steps > 0)
        ends = level[0] - slope[0] * (x[0] + 1.0), level[-1] + slope[-1] * (1.0 - x[-1])
        x, level = np.concatenate(([-1.0], x, [1.0])), np.concatenate((ends[:1], level, ends[1:]))
    return Curve(x, level)


def _clipped(residual: FloatArray, deviations: float) -> FloatArray:
    size = sampled(np.abs(residual))
    bound = deviations * 1.4826 * (float(np.median(size)) or float(size.mean()))
    return np.clip(residual, -bound, bound)
