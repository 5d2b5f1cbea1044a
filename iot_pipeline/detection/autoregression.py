"""Predict each reading from the ones before it; what the prediction misses by is its innovation."""

import numpy as np

from iot_pipeline.detection.prepare import Readings, sampled
from iot_pipeline.detection.types import BoolArray, FloatArray

ORDER = 8
_CLIP = 15.0  # median deviations, beyond which a reading has no more say in the fit
_ROWS = 6_000  # readings that tell the coefficients well enough
_OUTLIER = 5.0  # usual changes; a reading that lies so far off has no say in the fit, nor those after it
_PAUSE = 6.0  # usual steps, after which the readings before predict nothing


def fit_autoregression(values: FloatArray, usable: BoolArray, order: int) -> FloatArray:
    """Fit coefficients and a constant by least squares, float64[order + 1], the latest reading's first.

    Source: conditional least squares (Box, Jenkins & Reinsel, "Time Series Analysis", 1994, section 7.1).
    What is to be predicted is `usable`, bool[n]; none of the first `order` values is.
    """
    rows = np.flatnonzero(usable)
    if len(rows) > _ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, _ROWS).astype(np.intp)]  # at all times of the day
    design = np.array([*(values[rows - lag] for lag in range(1, order + 1)), np.ones(len(rows))])
    gram = design @ design.T
    gram[np.diag_indices(order + 1)] *= 1.0 + 1e-9
    gram[np.diag_indices(order + 1)] += 1e-9
    return np.linalg.solve(gram, design @ values[rows])


def predict(readings: Readings) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Predict each of many readings from the eight before it; soon after a pause, by the one before it.

    The second fit sees neither readings that lie far from the first one's prediction nor those after them.

    Returns:
        The innovations, float64[n], reading minus prediction in scaled units; whether as many readings as are
        needed precede without a pause, bool[n]; what turns readings into innovations, float64[p + 1].
    """
    values = readings.values
    pause = np.diff(readings.seconds, prepend=-readings.step) > _PAUSE * readings.step
    since = np.arange(len(values)) - np.maximum.accumulate(np.where(pause, np.arange(len(values)), 0))
    usable = since >= ORDER
    fitted = np.ones(len(values), dtype=bool)
    change = np.where(pause, 0.0, np.diff(values, prepend=values[0]))
    bound = _OUTLIER * float(np.abs(change).mean())
    clipped = np.clip(values, -_CLIP, _CLIP)
    for _ in range(2):
        coefficients = fit_autoregression(clipped, usable & fitted, ORDER)
        filter_ = np.append(1.0, -coefficients[:-1])
        rest = np.convolve(values, filter_)[: len(values)] - coefficients[-1]
        outliers = np.cumsum(np.abs(rest) > bound)
        fitted[ORDER:] = outliers[ORDER:] == np.append(0, outliers[:-1])[:-ORDER]
    # A change is compared with other changes: they may be large where eight readings foretell the next well.
    usual = [float(np.median(sampled(np.abs(each[usable])))) for each in (rest, change)]
    return np.where(usable, rest, change * min(usual[0] / max(usual[1], 1e-12), 1.0)), usable, filter_
