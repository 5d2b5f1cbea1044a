"""Fewer points than readings, and the same picture: nothing that sticks out of a pixel column is left out."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.intp]

_LINEAR = 6.0  # standard deviations up to which the axis of residuals is linear
_MOST = 1e5
_LONG = 12  # times the usual step: no line is drawn across such a gap


def pixel_columns(instants: IntArray, start: int, end: int, columns: int) -> IndexArray:
    """Return the position of the first reading in each pixel column that has one.

    Args:
        instants: int64[n], ascending.
        start: The left edge of the picture, no later than the first instant.
        end: Its right edge.
        columns: The width of the picture in pixels.

    Returns:
        intp[m], ascending, m ≤ columns; the readings of a column reach up to the next position.
    """
    edges = np.linspace(start, end, columns, endpoint=False).astype(np.int64)
    firsts = np.unique(np.append(0, np.searchsorted(instants, edges)))
    return firsts[firsts < len(instants)]


def thin(values: FloatArray, firsts: IndexArray) -> IndexArray:
    """Choose of each pixel column the first, last, lowest and highest reading.

    A line through these covers the same pixels as one through all readings (M4: Jugel et al., "M4: A
    Visualization-Oriented Time Series Data Aggregation", VLDB 2014).

    Args:
        values: float64[n], finite, in the order of time.
        firsts: intp[m], the first position in each column.

    Returns:
        intp[k], ascending positions, at most four per column.
    """
    if not len(values):
        return np.empty(0, np.intp)
    counts = np.diff(np.append(firsts, len(values)))
    chosen = np.zeros(len(values), bool)
    chosen[firsts] = True
    chosen[firsts + counts - 1] = True
    column = np.repeat(np.arange(len(firsts)), counts)
    for extreme in (np.minimum, np.maximum):
        hits = np.flatnonzero(values == extreme.reduceat(values, firsts)[column])
        chosen[hits[np.diff(column[hits], prepend=-1) > 0]] = True
    return np.flatnonzero(chosen)


def breaks(instants: IntArray, chosen: IndexArray, column_width: float) -> IndexArray:
    """Find the gaps in which nobody measured, that a line must not bridge.

    Args:
        instants: int64[n], ascending.
        chosen: intp[k], the positions that the line goes through.
        column_width: The time that a pixel column spans; shorter gaps can't be seen.

    Returns:
        intp[b], positions in `chosen` that come after a gap.
    """
    if len(instants) < 2:  # noqa: PLR2004 - no step without two
        return np.empty(0, np.intp)
    longest = max(_LONG * float(np.median(np.diff(instants))), 2 * column_width)
    return np.flatnonzero(np.diff(instants[chosen]) > longest) + 1


def one_per_pixel(x: FloatArray, y: FloatArray, columns: int, rows: int) -> IndexArray:
    """Choose markers so that every pixel that has one keeps one: what is left out is hidden behind another.

    Args:
        x: float64[n], across.
        y: float64[n], up.
        columns: Pixels across.
        rows: Pixels up.

    Returns:
        intp[k], ascending.
    """
    cell = _pixel(x, columns) * rows + _pixel(y, rows)
    return np.sort(np.unique(cell, return_index=True)[1])


def _pixel(places: FloatArray, pixels: int) -> IntArray:
    if not len(places):
        return np.empty(0, np.int64)
    low, high = float(places.min()), float(places.max())
    share = places / 2 - low / 2  # halves: the difference of two huge numbers has no room in a float
    share = share / (high / 2 - low / 2 or 1.0)
    return np.minimum(share * pixels, pixels - 1).astype(np.int64)


def compress(residuals: FloatArray) -> FloatArray:
    """Map residuals to the axis that they are drawn on: linear where the noise lies, logarithmic beyond.

    So one huge residual doesn't flatten the rest. Those of more than 100,000 lie at the edge.
    """
    size = np.clip(np.abs(residuals), _LINEAR, _MOST)
    return np.where(
        np.abs(residuals) <= _LINEAR, residuals, np.sign(residuals) * _LINEAR * (1 + np.log10(size / _LINEAR))
    )
