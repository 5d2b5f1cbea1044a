"""Piecewise linear trends: breakpoints by exact dynamic programming on the blocks, lines through pwlf."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from iot_pipeline.detection.blocks import Blocks, block_index
from iot_pipeline.detection.prepare import Readings
from iot_pipeline.detection.trends import Trend, capped_bic, fit_robustly, huber_weights
from iot_pipeline.detection.types import Curve, FloatArray

_NODES = 256  # the dynamic program is quadratic in their number
_PENALTY = 3.9  # per segment, in units of ln(nodes)
_REGIME = 0.018  # a shorter part of the span is an event
_MOST_SEGMENTS = 12
_FARTHEST = 6.0  # standard deviations, beyond which a reading has no more say
_MOST_STEPS = 6  # of the 8 steps from the bend to the jump
_CLEARLY = 10.0  # the gain in log-likelihood that a jump is worth
_JUMP_WIDTH = 2e-6  # of the span; narrower than a step between two of 105,000 readings
_CLOSEST = 1e-4  # of half the span: nearer breakpoints make no lines between them
Line = tuple[float, float]  # intercept and slope


@dataclass(frozen=True)
class Break:
    """A place at x in [-1, 1] where the line bends or, with `jump`, starts anew."""

    x: float
    jump: bool


class _SegmentCosts:
    """The weighted squared error of a line through every run of nodes, from prefix sums.

    Attributes:
        cost: float64, shape (k + 1, k + 1), [i, j] for the nodes i to j - 1.
    """

    def __init__(self, x: FloatArray, y: FloatArray, weight: FloatArray) -> None:
        terms = weight * np.array((np.ones_like(x), x, x * x, y, x * y, y * y))
        self._sums = np.pad(np.cumsum(terms, axis=1), ((0, 0), (1, 0)))
        s, sx, sxx, sy, sxy, syy = self._sums[:, None, :] - self._sums[:, :, None]
        tiny = 1e-12 * max(float(weight.max()), 1e-300)
        s = np.maximum(s, tiny)
        across = np.maximum(sxx - sx**2 / s, tiny * 1e-6)
        error = syy - sy**2 / s - (sxy - sx * sy / s) ** 2 / across
        self.cost = np.maximum(error, 0.0)

    def line(self, i: int, j: int) -> Line:
        """Fit a line to the nodes i to j - 1."""
        s, sx, sxx, sy, sxy, _ = self._sums[:, j] - self._sums[:, i]
        determinant = max(s * sxx - sx**2, 1e-12 * s * s) or 1.0
        return float(sxx * sy - sx * sxy) / determinant, float(s * sxy - sx * sy) / determinant


def _segment(cost: FloatArray, penalty: float, shortest: int) -> list[int]:
    """Find the edges of the segmentation with the least penalised cost.

    Source: Jackson et al., "An algorithm for optimal partitioning of data on an interval", IEEE Signal
    Processing Letters 12 (2005).
    """
    count = len(cost) - 1
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    origin = np.zeros(count + 1, dtype=int)
    for stop in range(shortest, count + 1):
        total = best[: stop - shortest + 1] + cost[: stop - shortest + 1, stop]
        origin[stop] = np.argmin(total)
        best[stop] = total[origin[stop]] + penalty
    edges = [count]
    while edges[-1] > 0:
        edges.append(int(origin[edges[-1]]))
    return edges[::-1]


def _find_breaks(blocks: Blocks, readings: Readings, values: FloatArray) -> list[Break]:
    """Find where the trend bends or jumps; what returns within 1.8 % of the span is an event and ignored."""
    group = -(-len(blocks.x) // _NODES)
    count = len(blocks.x) // group
    weight = (blocks.error[: count * group] ** -2.0).reshape(count, group)
    total = weight.sum(axis=1)
    node_x, node_y = (
        (part[: count * group].reshape(count, group) * weight).sum(axis=1) / total
        for part in (blocks.x, blocks.level)
    )
    regime = max(3, int(np.ceil(_REGIME * count)))
    penalty = _PENALTY * np.log(count)

    # First any run may be a segment. Short ones are events, or straddle a jump, and lose their weight.
    edges = _segment(_SegmentCosts(node_x, node_y, total).cost, penalty, 1)
    kept = total.copy()
    for start, stop in pairwise(edges):
        if stop - start < regime:
            kept[max(start - 1, 0) : stop + 1] = 0.0  # an event may reach into its neighbours
    if np.count_nonzero(kept) < 2 * regime:
        return []
    costs = _SegmentCosts(node_x, node_y, kept)
    for _ in range(20):
        edges = _segment(costs.cost, penalty, regime)
        if len(edges) <= _MOST_SEGMENTS + 1:
            break
        penalty *= 1.5

    regimes = []
    for start, stop in pairwise(edges):
        live = start + np.flatnonzero(kept[start:stop])
        if len(live) >= regime - 1:
            regimes.append((costs.line(start, stop), node_x[live[0]], node_x[live[-1]]))
    half = 0.75 / count * (node_x[-1] - node_x[0])
    return [
        _switch((float(end) - half, float(begin) + half), (before, after), readings.x, values)
        for (before, _, end), (after, begin, _) in pairwise(regimes)
    ]


def _switch(
    window: tuple[float, float], lines: tuple[Line, Line], x: FloatArray, values: FloatArray
) -> Break:
    """Switch from one line to the next where they cross, or by a jump where the readings clearly want that.

    The loss of the readings is bounded, so that an event nearby doesn't draw the switch to itself.
    """
    start, stop = np.searchsorted(x, window)
    start, stop = max(int(start) - 1, 0), min(int(stop) + 1, len(x))
    here, y = x[start:stop], values[start:stop]
    away = [np.abs(y - intercept - slope * here) for intercept, slope in lines]
    scale = 1.4826 * float(np.median(np.minimum(*away))) + 1e-12
    before, after = (np.minimum(each / scale, _FARTHEST) ** 2 / 2 for each in away)
    # The loss if the first k readings follow the first line, and all others the second one.
    loss = np.concatenate(([0.0], np.cumsum(before - after)))
    (a, slope_a), (b, slope_b) = lines
    crossing = (a - b) / (slope_b - slope_a) if slope_a != slope_b else np.inf
    crossing = float(np.clip(crossing, *window))
    kink = int(np.searchsorted(here, crossing))
    best = int(np.argmin(loss[1:-1])) + 1
    # An event near a bend looks like a jump, but only for a part of the readings that lie in between.
    steps = np.diff(loss[np.linspace(kink, best, 9).astype(int)])
    if loss[kink] - loss[best] < _CLEARLY or np.count_nonzero(steps <= 0) < _MOST_STEPS:
        return Break(crossing, jump=False)
    return Break(float(here[best - 1] + here[best]) / 2, jump=True)


def _design(x: FloatArray, breaks: list[Break]) -> FloatArray:
    columns = [np.ones_like(x), x]
    for each in breaks:
        columns.append(np.maximum(x - each.x, 0.0))
        if each.jump:
            columns.append((x >= each.x).astype(float))
    return np.column_stack(columns)


def _curve(
    x: FloatArray, level: FloatArray, weights: FloatArray, breaks: list[Break], *, flat: bool
) -> Curve:
    """Fit levels or, with pwlf, lines between given breakpoints by least squares.

    Source: Jekel & Venter, "pwlf: a Python library for fitting 1D continuous piecewise linear functions"
    (2019). A jump is a pair of breakpoints closer together than two readings.
    """
    apart = _JUMP_WIDTH / 2
    sides = [each.x + side for each in breaks for side in ((-apart, apart) if each.jump else (0.0,))]
    knots = np.array([min(-1.0, x[0]), *sides, max(1.0, x[-1])])
    if flat:
        regime = np.searchsorted([each.x for each in breaks], x)
        heights = np.bincount(regime, weights * level) / np.bincount(regime, weights)
        return Curve(knots, np.repeat(heights, 2))
    from pwlf import PiecewiseLinFit  # noqa: PLC0415  a slow import, which most sensors do without

    used = weights > 0
    fit = PiecewiseLinFit(x[used], level[used], weights=np.sqrt(weights[used]), lapack_driver="gelsy")
    fit.fit_with_breaks(knots)
    return Curve(knots, fit.predict(knots))


def piecewise_trends(blocks: Blocks, readings: Readings, values: FloatArray) -> list[Trend]:
    """Fit lines between breakpoints, and levels where all breakpoints are jumps; none without a breakpoint.

    The values, float64[n], are those of the readings without what repeats.
    """
    # An event at an end draws a bend to itself.
    inside = 1.0 - 2.0 * _REGIME
    breaks = [each for each in _find_breaks(blocks, readings, values) if each.jump or abs(each.x) < inside]
    if not breaks or np.min(np.diff([-1.0, *(each.x for each in breaks), 1.0])) < _CLOSEST:
        return []
    jumps = [each.x for each in breaks if each.jump]
    # A block that holds readings from both sides of a jump tells of neither.
    first, last = readings.x[block_index(len(values))[:, [0, -1]]].T
    straddling = np.any([(first < jump) & (jump < last) for jump in jumps], axis=0)
    error = np.where(straddling, np.inf, blocks.error)
    design = _design(blocks.x, breaks)
    away = (blocks.level - design @ fit_robustly(design, blocks.level, error)) / error
    weights = error**-2.0 * huber_weights(away)
    trends = []
    for flat in (False, True) if len(jumps) == len(breaks) else (False,):
        curve = _curve(blocks.x, blocks.level, weights, breaks, flat=flat)
        rest = blocks.level - curve(blocks.x)
        size = 1 + 2 * len(breaks) if flat else 2 + 2 * len(breaks) + len(jumps)
        trends.append(
            Trend(
                name="steps" if flat else "piecewise linear" + (" with jumps" if jumps else ""),
                evaluate=curve,
                criterion=capped_bic(rest / error, size),
                size=size,
                away=rest / blocks.error,
                parameters=(("segments", float(len(breaks) + 1)),),
                breaks=tuple(each.x for each in breaks),
            )
        )
    return trends
