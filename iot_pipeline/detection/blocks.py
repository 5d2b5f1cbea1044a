"""Condense a sensor to some 512 robust levels, on which models are cheap to fit."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.types import FloatArray, IntArray

_BLOCKS = 512
_SMALLEST_BLOCK = 8  # readings; fewer only when there would be less than 16 blocks
_FEWEST_BLOCKS = 16
_HUBER = 1.5


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of equal count, B of them with m readings each.

    Attributes:
        index: int, shape (B, m), the readings of each block; some readings belong to none.
        x: float64, shape (B,), the mean time of each block, in [-1, 1] over the sensor's span.
        level: float64, shape (B,), a robust mean.
        error: float64, shape (B,), the standard error of the level.
    """

    index: IntArray
    x: FloatArray
    level: FloatArray
    error: FloatArray


def block_index(n: int) -> IntArray:
    """Divide n readings into blocks of equal count, int[B, m]; up to one reading between two blocks is left out."""
    count = min(_BLOCKS, max(n // _SMALLEST_BLOCK, min(n, _FEWEST_BLOCKS)))
    starts = np.arange(count) * n // count
    return starts[:, None] + np.arange(n // count)


def row_medians(rows: FloatArray) -> FloatArray:
    """Give the median of each row, float64[B]; several times faster than numpy's, which looks for NaN."""
    middle = rows.shape[1] // 2
    parted = np.partition(rows, middle, axis=1)
    if rows.shape[1] % 2:
        return parted[:, middle]
    return (parted[:, middle] + parted[:, :middle].max(axis=1)) / 2


def condense(x: FloatArray, values: FloatArray, floor: float) -> Blocks:
    """Give each block's level: the median, the local slope removed, then two Huber steps.

    Source: Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964); the
    standard error is that of an M-estimate (Huber & Ronchetti, "Robust Statistics", 2009, chapter 3).

    Args:
        x: float64, shape (n,), time in [-1, 1], ascending.
        values: float64, shape (n,).
        floor: The smallest standard deviation that a reading can have.
    """
    index = block_index(len(x))
    xs, ys = x[index], values[index]
    centre = xs.mean(axis=1)
    level = row_medians(ys)
    slope = np.zeros_like(level)
    rise, run = level[2:] - level[:-2], centre[2:] - centre[:-2]
    np.divide(rise, run, out=slope[1:-1], where=run > 0)
    slope[[0, -1]] = slope[[1, -2]] if len(slope) > 1 else 0.0
    deviation = ys - level[:, None] - slope[:, None] * (xs - centre[:, None])
    spread = np.maximum(1.4826 * row_medians(np.abs(deviation)), floor)
    bound = _HUBER * spread[:, None]
    shift = np.zeros((len(level), 1))
    for _ in range(2):
        clipped = np.clip(deviation - shift, -bound, bound)
        inside = np.maximum(np.count_nonzero(np.abs(clipped) < bound, axis=1), 1)[:, None]
        shift += clipped.sum(axis=1, keepdims=True) / inside
    m = index.shape[1]
    error = np.sqrt(m * np.mean(clipped**2, axis=1)) / inside[:, 0]
    # A stuck or bursting block tells little about its own noise; its error is taken from the many.
    typical = float(np.median(np.maximum(error, floor / np.sqrt(m))))
    return Blocks(index, centre, level + shift[:, 0], np.clip(error, 0.5 * typical, 10.0 * typical))
