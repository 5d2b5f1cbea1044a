"""The noise around the model: its local size, its tails and its memory."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import ndimage, special

from iot_pipeline.detection.blocks import block_index, equal_parts, row_medians
from iot_pipeline.detection.cycles import DAY, WEEK
from iot_pipeline.detection.summer_time import clock_seconds
from iot_pipeline.detection.types import BoolArray, Curve, Cycle, FloatArray

_WINSOR = 2.5
_CLIPPED_MEAN = 0.79395  # the mean of |Z| clipped at 2.5 for standard normal Z
_SMALL_SAMPLE = 0.3  # by how much the estimate falls short in m readings, times m (by simulation)
_SCALE_PARTS = {DAY: 48, WEEK: 168}
_FEWEST_IN_PART = 6  # readings of the odd periods, and of the even ones
_RELIABLE = 0.6  # the correlation of the odd periods' profile with that of the even ones
_QUIETEST = 0.05  # of the noise at other times
_GROUPS = 16
_WINDOW = 0.06  # of the blocks: wider than any event
_FREEDOMS = np.array([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 10.0, 13.0, 18.0, 30.0])
_SCALES = np.linspace(0.6, 1.15, 23)
_CORE = 4.0  # standard deviations within which the tails are judged
_CELLS = 64
_SILENT = 1e-3  # times the usual mean square
_UPPER, _UPPER_SD = 0.9, 1.645  # a quantile of |Z| for standard normal Z
_NEAR, _STEPS = 8.0, 400  # up to where residuals are mapped by a fine table, and its steps
_LAGS = 4
_OUTLIER = 4.0  # standard deviations of what the preceding readings leave unexplained


def local_scale(x: FloatArray, residual: FloatArray, floor: float) -> Curve:
    """Estimate the standard deviation of the noise over time; constant where its variation is insignificant.

    Winsorised mean deviations per block (Tukey, 1962; Huber & Ronchetti, "Robust Statistics", 2009), smoothed
    by a running median wider than any event, then a running mean.

    Args:
        x: float64, shape (n,), time, ascending.
        residual: float64, shape (n,).
        floor: The smallest standard deviation.
    """
    index = block_index(len(x))
    logs = np.log(np.maximum(_winsorised_scale(np.abs(residual[index])), floor))
    count = len(logs)
    if count < 4 * _GROUPS or not _varies(logs):
        return Curve(x[[0, -1]], np.full(2, np.exp(np.median(logs))))
    width = max(5, int(_WINDOW * count) | 1)
    smooth = ndimage.median_filter(logs, width)[width // 2 : -(width // 2)]
    smooth = np.pad(smooth, width // 2, mode="reflect", reflect_type="odd")  # no event at an end counts twice
    short = width // 8 | 1
    smooth = np.convolve(np.pad(smooth, short // 2, mode="edge"), np.full(short, 1.0 / short), mode="valid")
    return Curve(x[index].mean(axis=1), np.exp(smooth))


def _varies(logs: FloatArray) -> bool:
    """Say whether groups of blocks differ in their logarithms, float64[B], by more than neighbours do."""
    groups = row_medians(logs[equal_parts(len(logs), _GROUPS)])
    scatter = 1.4826 * np.median(np.abs(np.diff(logs))) / np.sqrt(2.0)
    error = 1.2533 * scatter / np.sqrt(len(logs) / _GROUPS)
    return bool(np.sum((groups - groups.mean()) ** 2) > 3.0 * _GROUPS * error**2)


def _winsorised_scale(rows: FloatArray) -> FloatArray:
    """Estimate the standard deviation of each row of absolute deviations, float64[rows]."""
    bounded = np.minimum(rows, _WINSOR * 1.4826 * row_medians(rows)[:, None])
    scale: FloatArray = bounded.mean(axis=1) / _CLIPPED_MEAN * (1.0 + _SMALL_SAMPLE / rows.shape[1])
    return scale


def scale_cycle(seconds: FloatArray, z: FloatArray, cycles: tuple[Cycle, ...]) -> Cycle | None:
    """Find out whether the noise is louder at some times of the day or the week, as where people come and go.

    A profile is believed in as far as the odd periods have the same as the even ones: the split-half
    reliability (Spearman, "Correlation calculated from faulty data", British Journal of Psychology 3, 1910).

    Args:
        seconds: float64, shape (n,), ascending.
        z: float64, shape (n,), residuals in local standard deviations.
        cycles: What repeats in the readings; the noise follows the longest that is a day or a week.

    Returns:
        The logarithm of the standard deviation's factor; None where there is no such profile.
    """
    for cycle in sorted(cycles, key=lambda cycle: -cycle.period):
        if cycle.period not in _SCALE_PARTS:
            continue
        parts = _SCALE_PARTS[cycle.period]
        turns = clock_seconds(seconds, cycle.clock_changes) / cycle.period
        place = np.rint(turns * parts).astype(np.intp)
        cell = place % parts + parts * (place // parts % 2)  # the part, in an even or an odd period
        order = np.argsort(cell, kind="stable")
        count = np.bincount(cell, minlength=2 * parts)
        least = int(count.min())
        if least < _FEWEST_IN_PART:
            continue
        # As many readings of each part, spread over all its periods, make a rectangle.
        starts = np.cumsum(count) - count
        picks = starts[:, None] + (np.arange(least) * (count[:, None] / least)).astype(np.intp)
        halves = np.log(np.maximum(_winsorised_scale(np.abs(z[order[picks]])), _QUIETEST))
        even, odd = (half - half.mean() for half in halves.reshape(2, parts))
        common = float(even @ odd) / max(float(np.sqrt((even @ even) * (odd @ odd))), 1e-12)
        if common > _RELIABLE:
            return replace(cycle, table=(even + odd) * (common / (1.0 + common)))
    return None


def tail_freedom(z: FloatArray) -> tuple[float, float]:
    """Fit a Student t to the core of standardised residuals; a Gaussian unless it is significantly better.

    Maximum likelihood of the truncated distribution on cells (Lange, Little & Taylor, "Robust statistical
    modeling using the t distribution", JASA 84, 1989). Returns the degrees of freedom, infinite for a
    Gaussian, and the scale of the distribution in units of z.
    """
    size = np.abs(z)
    cells = (size[size < _CORE] * (_CELLS / _CORE)).astype(np.intp)
    count = np.bincount(cells, minlength=_CELLS).astype(np.float64)
    gaussian, student = (shares @ count for shares in _log_shares())
    row, column = np.unravel_index(int(np.argmax(student)), student.shape)
    if student[row, column] - gaussian.max() < 10.0:  # noqa: PLR2004  odds of e^10
        return np.inf, 1.0
    return float(_FREEDOMS[row]), float(_SCALES[column])


@lru_cache(maxsize=1)
def _log_shares() -> tuple[FloatArray, FloatArray]:
    """Tabulate each cell's log probability: [scale, cell] for a Gaussian, [freedom, scale, cell] for a t."""
    edges = np.linspace(0.0, _CORE, _CELLS + 1) / _SCALES[:, None]
    tables = []
    for cumulative in (special.ndtr(edges), special.stdtr(_FREEDOMS[:, None, None], edges)):
        share = np.diff(cumulative, axis=-1) / (cumulative[..., -1:] - cumulative[..., :1])
        tables.append(np.log(share))
    return tables[0], tables[1]


def gaussianise(z: FloatArray, freedom: float, scale: float) -> FloatArray:
    """Map standardised residuals to Gaussian scores of the same tail probability, float64[n]."""
    if not np.isfinite(freedom):
        return z
    near = np.linspace(0.0, _NEAR, _STEPS + 1)
    table = _gaussian_scores(near, freedom, scale)
    size = np.abs(z)
    place = np.minimum(size, np.nextafter(_NEAR, 0.0)) * (_STEPS / _NEAR)
    left = place.astype(np.intp)
    scores = table.take(left) + (place - left) * np.diff(table).take(left)
    far = np.flatnonzero(size >= _NEAR)
    if len(far):
        grid = np.geomspace(_NEAR, 1e12, _STEPS)
        scores[far] = np.interp(size[far], grid, _gaussian_scores(grid, freedom, scale))
    return np.copysign(scores, z)


def _gaussian_scores(size: FloatArray, freedom: float, scale: float) -> FloatArray:
    tail = np.maximum(special.stdtr(freedom, -size / scale), 1e-300)
    scores: FloatArray = -special.ndtri(tail)
    return scores


def neighbour_correlation(rest: FloatArray) -> float:
    """Correlate neighbouring readings without their rhythm, float64[n], around a line in each part."""
    rows = _parts(rest)
    line = np.linspace(-1.0, 1.0, rows.shape[1])
    slope = rows @ line / (line @ line)
    rows = rows - rows.mean(axis=1, keepdims=True) - slope[:, None] * line
    return float(_correlations(rows, 1, usual=float(np.median(np.mean(rows**2, axis=1))))[1])


def memory(z: FloatArray) -> FloatArray:
    """Fit an autoregression to standardised residuals; empty unless neighbours are clearly correlated.

    Source: the Yule-Walker equations (Box, Jenkins & Reinsel, "Time Series Analysis", 1994, section 3.2).
    Residuals, float64[n], are clipped, and zero within events. Returns the coefficients of the preceding
    readings, float64[p], the latest first.
    """
    rows = _parts(z)
    correlation = _correlations(rows, _LAGS, usual=1.0)
    if np.max(np.abs(correlation[1:])) < max(0.05, 6.0 / np.sqrt(len(z))):
        return np.empty(0)
    # Tapered, the correlations belong to a process that exists.
    lags = np.arange(_LAGS + 1)
    correlation *= np.where(lags > 0, 0.999 * (1.0 - lags / (4.0 * rows.shape[1])), 1.0)
    apart = np.abs(np.subtract.outer(lags[1:], lags[1:]))
    return np.asarray(np.linalg.solve(correlation[apart], correlation[1:]), dtype=np.float64)


def _parts(z: FloatArray) -> FloatArray:
    """Divide a series into parts of 50 to 200 readings, float64[parts, size]; a short one is a part."""
    size = min(int(np.clip(len(z) // 100, 50, 200)), len(z))
    return z[: len(z) // size * size].reshape(-1, size)


def _correlations(rows: FloatArray, lags: int, *, usual: float) -> FloatArray:
    """Correlate readings up to so many apart, float64[lags + 1]: medians over parts, so events matter little.

    Parts, float64[parts, size], whose mean square is far below the usual one hold no noise to judge.
    """
    size = rows.shape[1]
    power = np.einsum("ij,ij->i", rows, rows)
    rows = rows[power > _SILENT * usual * size]
    if not len(rows):
        return np.zeros(lags + 1)
    products = [np.einsum("ij,ij->i", rows[:, lag:], rows[:, : size - lag]) for lag in range(lags + 1)]
    shares = np.median(np.array(products) / products[0], axis=1)
    return np.asarray(shares * size / (size - np.arange(lags + 1)), dtype=np.float64)


def whiten(z: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Subtract from each score what the preceding ones predict, float64[n].

    A reading that leaves its neighbours and returns at once is an additive outlier (Fox, "Outliers in time
    series", J. R. Statist. Soc. B 34, 1972): it predicts nothing about the ones after it.
    """
    predict = np.concatenate(([0.0], coefficients))
    rest = z - np.convolve(z, predict)[: len(z)]
    spread = 1.4826 * float(np.median(np.abs(rest)))
    away = z[1:-1] - (z[:-2] + z[2:]) / 2
    jumps = np.minimum(np.abs(rest[1:-1]), 2.0 * np.abs(away)) > _OUTLIER * spread
    outliers = 1 + np.flatnonzero(jumps & (rest[1:-1] * rest[2:] < 0))
    cleaned = z.copy()
    cleaned[outliers] -= rest[outliers]
    white: FloatArray = z - np.convolve(cleaned, predict)[: len(z)]
    return white


def inflation(z: FloatArray, free: BoolArray) -> float:
    """Tell by how much sums of scores vary more than independent ones would; 1 where insignificant.

    The variance of block means over that of independent readings (Geyer, "Practical Markov chain Monte
    Carlo", Statistical Science 7, 1992), for blocks of several lengths, by their 90th percentile. Scores,
    float64[n], are clipped; those that are free lie outside events.
    """
    kept = z[free]
    result = 1.0
    for size in (16, 64, 256, 1024):
        count = len(kept) // size
        if count < 16:  # noqa: PLR2004  too few blocks to tell
            break
        sums = kept[: count * size].reshape(count, size).sum(axis=1)
        away = np.abs(sums - np.median(sums))
        ratio = (float(np.partition(away, int(_UPPER * count))[int(_UPPER * count)]) / _UPPER_SD) ** 2 / size
        if ratio > 1.0 + 5.0 * np.sqrt(2.7 / count):
            result = max(result, ratio)
    return result
