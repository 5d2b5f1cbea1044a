"""The regular behaviour of a sensor: cycles and the best trend, fitted in turns."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.blocks import Blocks, condense
from iot_pipeline.detection.cycles import DAY, WEEK, find_periods, fit_cycles
from iot_pipeline.detection.piecewise import piecewise_trends
from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.summer_time import clock_changes
from iot_pipeline.detection.trends import Trend, is_adequate, smooth_trends
from iot_pipeline.detection.types import Curve, Cycle, FloatArray

YEAR = 365.25 * DAY
_COARSE = 24  # parts of the span whose medians make a first trend
_TURNS = 8
_CLEARLY = 10.0  # the gain in log-likelihood, doubled, from which cycles follow summer time
_MUCH = 0.08  # the share of clipped readings up to which a cycle is believed
_NODES = 2048  # of a smooth trend's polygon


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model in scaled units and time in [-1, 1].

    Attributes:
        trends: All candidates, the chosen one first.
        curve: The chosen trend.
        cycles: What repeats, over seconds.
        adequate: Whether the trend leaves nothing but noise and a few events on the blocks.
        blocks: The blocks that the trend was fitted to.
        expected: float64, shape (n,), the model at the readings.
    """

    trends: list[Trend]
    curve: Curve
    cycles: tuple[Cycle, ...]
    adequate: bool
    blocks: Blocks
    expected: FloatArray


def fit_model(readings: Readings, x: FloatArray) -> Fit:
    """Fit cycles to what a coarse trend leaves, the trend to what the cycles leave, and the cycles once more.

    Such turns are backfitting (Hastie & Tibshirani, "Generalized Additive Models", 1990). Piecewise lines are
    tried only where no smooth trend is adequate. Days and weeks follow UTC, or the clock that goes ahead in
    summer where that fits clearly better.

    Args:
        readings: n of them.
        x: float64, shape (n,), their time in [-1, 1].
    """
    seconds, values = readings.seconds, readings.values
    blocks = condense(x, values, readings.floor)
    rough = values - _coarse_trend(blocks)(x)
    periods = find_periods(seconds, _clipped(rough, 4.0), readings.step)
    if WEEK in periods:
        rough = values - _coarse_trend(blocks, at_most=int(seconds[-1] // WEEK))(x)  # no weekend is a trend
    changes = np.empty(0)
    cycles, season = _fit_season(readings, rough, periods, deviations=4.0, changes=changes)
    summers = clock_changes(readings.origin, float(seconds[-1])) if cycles else changes
    if len(summers):
        by_clock = _fit_season(readings, rough, periods, deviations=4.0, changes=summers)
        left, left_by_clock = (np.sum(_clipped(rough - each, 4.0) ** 2) for each in (season, by_clock[1]))
        if len(values) * np.log(left / max(left_by_clock, 1e-300)) > _CLEARLY:
            changes, (cycles, season) = summers, by_clock
    if cycles:
        blocks = condense(x, values - season, readings.floor)

    year = np.pi * float(seconds[-1]) / YEAR
    trends = smooth_trends(blocks.x, blocks.level, blocks.error, year)
    if not is_adequate((blocks.level - trends[0].fitted) / blocks.error):
        trends += piecewise_trends(blocks, x, values - season)
        trends.sort(key=lambda trend: trend.criterion)
    curve = trends[0].evaluate
    if not isinstance(curve, Curve):
        grid = np.linspace(-1.0, 1.0, _NODES + 1)
        curve = Curve(grid, curve(grid))
    adequate = is_adequate((blocks.level - trends[0].fitted) / blocks.error)
    trend = curve(x)
    cycles, season = _fit_season(readings, values - trend, periods, season, deviations=2.5, changes=changes)
    return Fit(trends, curve, cycles, adequate, blocks, trend + season)


def _fit_season(
    readings: Readings,
    residual: FloatArray,
    periods: tuple[float, ...],
    season: FloatArray | float = 0.0,
    *,
    deviations: float,
    changes: FloatArray,
) -> tuple[tuple[Cycle, ...], FloatArray | float]:
    """Fit the cycles to residuals that are clipped around the last fit, until little is clipped any more.

    Args:
        readings: n of them.
        residual: float64, shape (n,), free of trend.
        periods: In seconds.
        season: float64, shape (n,), what is known of the cycles before.
        deviations: Where to clip, in robust standard deviations.
        changes: Of the clock that the cycles follow, in seconds.

    Returns:
        The cycles and their sum at the readings.
    """
    cycles: tuple[Cycle, ...] = ()
    for _ in range(_TURNS if periods else 0):
        rest = residual - season
        clipped = _clipped(rest, deviations)
        cycles = fit_cycles(readings.seconds, season + clipped, periods, readings.step, changes)
        season = np.add.reduce([cycle(readings.seconds) for cycle in cycles]) if cycles else 0.0
        if np.count_nonzero(clipped != rest) < _MUCH * len(rest):
            break
    return cycles, season


def _coarse_trend(blocks: Blocks, at_most: int = _COARSE) -> Curve:
    parts = min(_COARSE, at_most, len(blocks.x))
    x, level = (np.array_split(part, parts) for part in (blocks.x, blocks.level))
    return Curve(np.array([part.mean() for part in x]), np.array([np.median(part) for part in level]))


def _clipped(residual: FloatArray, deviations: float) -> FloatArray:
    size = sampled(np.abs(residual))
    bound = deviations * 1.4826 * (float(np.median(size)) or float(size.mean()))
    return np.clip(residual, -bound, bound)
