"""The regular behaviour of a sensor: cycles and the best trend, fitted in turns."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.blocks import Blocks, condense
from iot_pipeline.detection.cycles import DAY, find_periods, fit_cycles
from iot_pipeline.detection.piecewise import piecewise_trends
from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.trends import Trend, is_adequate, smooth_trends
from iot_pipeline.detection.types import Curve, Cycle, FloatArray

YEAR = 365.25 * DAY
_COARSE = 24  # parts of the span whose medians make a first trend
_TURNS = 8
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
    tried only where no smooth trend is adequate.

    Args:
        readings: n of them.
        x: float64, shape (n,), their time in [-1, 1].
    """
    seconds, values = readings.seconds, readings.values
    blocks = condense(x, values, readings.floor)
    rough = values - _coarse_trend(blocks)(x)
    periods = find_periods(seconds, _clipped(rough, 4.0), readings.step)
    cycles, season = _fit_season(readings, rough, periods, 4.0)
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
    cycles, season = _fit_season(readings, values - trend, periods, 2.5, season)
    return Fit(trends, curve, cycles, adequate, blocks, trend + season)


def _fit_season(
    readings: Readings,
    residual: FloatArray,
    periods: tuple[float, ...],
    deviations: float,
    season: FloatArray | float = 0.0,
) -> tuple[tuple[Cycle, ...], FloatArray | float]:
    """Fit the cycles to residuals that are clipped around the last fit, until little is clipped any more.

    Args:
        readings: n of them.
        residual: float64, shape (n,), free of trend.
        periods: In seconds.
        deviations: Where to clip, in robust standard deviations.
        season: float64, shape (n,), what is known of the cycles before.

    Returns:
        The cycles and their sum at the readings.
    """
    cycles: tuple[Cycle, ...] = ()
    for _ in range(_TURNS if periods else 0):
        rest = residual - season
        clipped = _clipped(rest, deviations)
        cycles = fit_cycles(readings.seconds, season + clipped, periods, readings.step)
        season = np.add.reduce([cycle(readings.seconds) for cycle in cycles]) if cycles else 0.0
        if np.count_nonzero(clipped != rest) < _MUCH * len(rest):
            break
    return cycles, season


def _coarse_trend(blocks: Blocks) -> Curve:
    parts = min(_COARSE, len(blocks.x))
    x, level = (np.array_split(part, parts) for part in (blocks.x, blocks.level))
    return Curve(np.array([part.mean() for part in x]), np.array([np.median(part) for part in level]))


def _clipped(residual: FloatArray, deviations: float) -> FloatArray:
    size = sampled(np.abs(residual))
    bound = deviations * 1.4826 * (float(np.median(size)) or float(size.mean()))
    return np.clip(residual, -bound, bound)
