"""Condense a sensor to some 512 robust levels, on which models are cheap to fit."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from iot_pipeline.detection.prepare import Readings
from iot_pipeline.detection.types import FloatArray, IntArray

_BLOCKS = 512
_SMALLEST_BLOCK = 8  # readings; fewer only when there would be less than 16 blocks
_FEWEST_BLOCKS = 16
_HUBER = 1.5
_NEIGHBOURS = 9  # blocks whose errors are taken together
_LARGE_BLOCK = 20  # readings from which the error is known well from within
_LEAST_RATIO = 1e-3


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of equal count, B of them.

    Attributes:
        x: float64, shape (B,), the mean time of each block, in [-1, 1] over the sensor's span.
        level: float64, shape (B,), a robust mean.
        error: float64, shape (B,), the standard error of the level.
    """

    x: FloatArray
    level: FloatArray
    error: FloatArray


def block_index(n: int) -> IntArray:
    """Give the readings of each block, int[B, m] of n; some belong to none."""
    return equal_parts(n, min(_BLOCKS, max(n // _SMALLEST_BLOCK, min(n, _FEWEST_BLOCKS))))


def equal_parts(n: int, count: int) -> IntArray:
    """Divide 0 to n - 1 into parts of equal length, int[count, m]; one number between two may be left out."""
    return (np.arange(count) * n // count)[:, None] + np.arange(n // count)


def row_medians(rows: FloatArray) -> FloatArray:
    """Give the median of each row, float64[B]; several times faster than numpy's, which looks for NaN."""
    middle = rows.shape[1] // 2
    parted = np.partition(rows, middle, axis=1)
    upper: FloatArray = parted[:, middle]
    if rows.shape[1] % 2:
        return upper
    lower: FloatArray = parted[:, :middle].max(axis=1)
    return (upper + lower) / 2


def condense(readings: Readings, values: FloatArray) -> Blocks:
    """Give each block's level: the median, the local slope removed, then two Huber steps.

    Source: Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964);
    the standard error is that of an M-estimate (Huber & Ronchetti, "Robust Statistics", 2009, chapter 3).
    The values, float64[n], are those of the readings without what repeats.
    """
    index = block_index(len(values))
    xs, ys = readings.x[index], values[index]
    centre = xs.mean(axis=1)
    level = row_medians(ys)
    slope = np.zeros_like(level)
    rise, run = level[2:] - level[:-2], centre[2:] - centre[:-2]
    np.divide(rise, run, out=slope[1:-1], where=run > 0)
    slope[[0, -1]] = slope[[1, -2]] if len(slope) > 1 else 0.0
    deviation = ys - level[:, None] - slope[:, None] * (xs - centre[:, None])
    spread = np.maximum(1.4826 * row_medians(np.abs(deviation)), readings.floor)
    bound = _HUBER * spread[:, None]
    shift = np.zeros((len(level), 1))
    for _ in range(2):
        clipped = np.clip(deviation - shift, -bound, bound)
        inside = np.maximum(np.count_nonzero(np.abs(clipped) < bound, axis=1), 1)[:, None]
        shift += clipped.sum(axis=1, keepdims=True) / inside
    level = level + shift[:, 0]
    error = np.sqrt(index.shape[1] * np.mean(clipped**2, axis=1)) / inside[:, 0]
    return Blocks(centre, level, _calibrated(level, np.maximum(error, readings.floor), index.shape[1]))


def _calibrated(level: FloatArray, error: FloatArray, size: int) -> FloatArray:
    """Smooth the standard errors, and raise them to what the levels' second differences show.

    A stuck or bursting block tells little about its own noise, and readings that depend on one another vary
    more in the mean than the block's inside tells. Source: Gasser, Sroka & Jennen-Steinmetz, "Residual
    variance and residual pattern in nonlinear regression", Biometrika 73 (1986).
    """
    if len(error) < _NEIGHBOURS:
        return error
    smooth: FloatArray = ndimage.median_filter(error, _NEIGHBOURS, mode="nearest")
    difference = np.abs(level[:-2] - 2.0 * level[1:-1] + level[2:])
    expected = np.sqrt(smooth[:-2] ** 2 + 4.0 * smooth[1:-1] ** 2 + smooth[2:] ** 2)
    ratio = 1.4826 * float(np.median(difference / expected))
    return smooth * max(ratio, _LEAST_RATIO if size < _LARGE_BLOCK else 1.0)
