"""Predict each reading from the ones before it; what the prediction misses by is its innovation."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.types import BoolArray, FloatArray

ORDER = 8
_CLIP = 9.0  # median deviations, beyond which a reading has no more say in the fit
_OUTLIER = 5.0  # median deviations of the innovations, after which readings have none
_ROWS = 6_000  # readings that tell the coefficients well enough
_PAUSE = 6.0  # usual steps, after which the readings before predict nothing
_FEWEST = 4  # readings to a usable one
_UNEVEN = 0.05  # the spread of the logarithm of the steps from which the noise may grow with them


@dataclass(frozen=True, eq=False)
class Prediction:
    """One-step predictions of n readings.

    Attributes:
        innovations: float64, shape (n,), reading minus prediction in scaled units, as of the usual step.
        growth: float64, shape (n,), by how much innovations grow with the time since the reading before.
        usable: bool, shape (n,), whether as many readings as are needed precede without a pause.
        filter: float64, shape (p + 1,), turns readings into innovations: 1, minus the coefficients.
    """

    innovations: FloatArray
    growth: FloatArray
    usable: BoolArray
    filter: FloatArray


def fit_autoregression(values: FloatArray, usable: BoolArray, order: int) -> FloatArray:
    """Fit coefficients and a constant by least squares, float64[order + 1], the latest reading's first.

    Source: conditional least squares (Box, Jenkins & Reinsel, "Time Series Analysis", 1994, section 7.1).

    Args:
        values: float64, shape (n,), without outliers.
        usable: bool, shape (n,), the readings that are to be predicted; none of the first `order`.
        order: How many readings predict the next.
    """
    rows = np.flatnonzero(usable)
    rows = rows[:: max(1, len(rows) // _ROWS)]
    design = np.array([*(values[rows - lag] for lag in range(1, order + 1)), np.ones(len(rows))])
    gram = design @ design.T
    gram[np.diag_indices(order + 1)] *= 1.0 + 1e-9
    gram[np.diag_indices(order + 1)] += 1e-9
    return np.asarray(np.linalg.solve(gram, design @ values[rows]), dtype=np.float64)


def predict(readings: Readings) -> Prediction:
    """Predict each reading from the eight before it; the fit sees neither outliers nor what follows them.

    Where steps are irregular, innovations grow with a power of the time between two readings.

    Args:
        readings: n of them, many times eight.
    """
    values = readings.values
    steps = np.diff(readings.seconds, prepend=-readings.step)
    pause = steps > _PAUSE * readings.step
    usable = _none_lately(pause)
    clipped = np.clip(values, -_CLIP, _CLIP)
    coefficients = fit_autoregression(clipped, usable, ORDER)
    rest = _innovations(values, coefficients)
    spread = 1.4826 * float(np.median(np.abs(sampled(rest[usable])))) if usable.any() else 0.0
    outlier = np.abs(rest) > _OUTLIER * spread
    undisturbed = usable & _none_lately(np.concatenate(([False], outlier[:-1])))
    if np.count_nonzero(undisturbed) * _FEWEST > len(values):
        coefficients = fit_autoregression(clipped, undisturbed, ORDER)
        rest = _innovations(values, coefficients)
    rest = _after_pauses(rest, values, pause, usable, coefficients)
    growth = _growth(rest, steps / max(readings.step, 1e-9), usable)
    return Prediction(rest / growth, growth, usable, np.append(1.0, -coefficients[:-1]))


def _none_lately(mask: BoolArray) -> BoolArray:
    """Mark where a mask holds neither here nor at the seven readings before, bool[n]."""
    count = np.cumsum(mask)
    result = np.zeros(len(mask), dtype=bool)
    result[ORDER:] = count[ORDER:] == count[:-ORDER]
    return result


def _innovations(values: FloatArray, coefficients: FloatArray) -> FloatArray:
    rest: FloatArray = np.convolve(values, np.append(1.0, -coefficients[:-1]))[: len(values)]
    rest -= coefficients[-1]
    return rest


def _after_pauses(
    rest: FloatArray, values: FloatArray, pause: BoolArray, usable: BoolArray, coefficients: FloatArray
) -> FloatArray:
    """Predict the readings after a pause as if the median of the first three had held before it."""
    start = pause.copy()
    start[0] = True
    first = np.maximum.accumulate(np.where(start, np.arange(len(values)), 0))
    few = np.flatnonzero(~usable)
    three = first[few, None] + np.arange(3)
    level = np.median(values[np.minimum(three, len(values) - 1)], axis=1)
    before = few[:, None] - np.arange(1, ORDER + 1)
    known = np.where(before >= first[few, None], values[before], level[:, None])
    result = rest.copy()
    result[few] = values[few] - known @ coefficients[:-1] - coefficients[-1]
    at_once = start[few]
    result[few[at_once]] = values[few[at_once]] - level[at_once]
    return result


def _growth(rest: FloatArray, steps: FloatArray, usable: BoolArray) -> FloatArray:
    """Tell by how much innovations grow with the time since the reading before, float64[n].

    A line through the logarithms; its slope is 1/2 for a random walk and 0 where noise is all there is.
    """
    usable = usable & (steps > 0)
    length = np.log(sampled(steps[usable]))
    if len(length) == 0 or length.std() <= _UNEVEN:
        return np.ones(len(rest))
    size = np.abs(sampled(rest[usable]))
    logs = np.log(size + 0.1 * float(np.median(size)) + 1e-12)
    length -= length.mean()
    power = float(np.clip(length @ (logs - logs.mean()) / (length @ length), 0.0, 1.0))
    grown: FloatArray = np.maximum(steps, 1e-3) ** power
    return grown
