"""Spikes, bursts and shifts as one thing: readings between two edges that lie apart by a constant."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.tails import Tail
from iot_pipeline.detection.types import FloatArray

_EDGE = 2.5  # standard deviations of an innovation
_PRICE = 10.0  # of a pair, in units of evidence
_DISCOUNT = 2.5  # what a pair's evidence is less, since it was chosen among several
_LONGEST = 200  # readings between two edges
_MOST_BETWEEN = 64  # other edges
_LEAST_RETURN = 0.3  # of a step, at the second edge


@dataclass(frozen=True)
class Patch:
    """Readings start to stop - 1 lie apart by `height`, in scaled units."""

    start: int
    stop: int
    height: float
    evidence: float


def find_patches(
    innovations: FloatArray, scale: FloatArray, filter_: FloatArray, tail: Tail, longest: int
) -> tuple[list[Patch], FloatArray]:
    """Find pairs of edges that a common step explains much better than chance; an edge belongs to one pair.

    With one reading between, it is the additive outlier, with several, the patch, of Chen & Liu ("Joint
    estimation of model parameters and outlier effects in time series", JASA 88, 1993).

    Args:
        innovations: float64, shape (n,).
        scale: float64, shape (n,), their local standard deviation.
        filter_: float64, shape (p + 1,), what turns readings into innovations.
        tail: The evidence of one innovation.
        longest: How many readings make a day.

    Returns:
        The pairs, and what they leave of the innovations, float64[n].
    """
    z = innovations / scale
    edges = np.flatnonzero(np.abs(z) > _EDGE)
    pairs = []
    for between in range(1, min(_MOST_BETWEEN, len(edges))):
        first, second = edges[:-between], edges[between:]
        near = second - first <= min(longest, _LONGEST)
        if not near.any():
            break
        near &= z[first] * z[second] < 0
        pairs.append((first[near], second[near]))
    if not pairs:
        return [], innovations
    ends = np.concatenate(pairs, axis=1)
    away = ends[1] - ends[0]
    back = np.minimum(np.cumsum(filter_) - 1.0, -_LEAST_RETURN)  # an edge's opposite after so many readings
    opposite = back[np.minimum(away, len(back) - 1)]
    heights, gains = _common_steps(innovations[ends], scale[ends], opposite, tail)
    passed = np.flatnonzero(gains > _PRICE + np.log(away))
    rest = innovations.copy()
    patches = []
    # The clearest first, and each takes out of the innovations what it has put in.
    for pair in passed[np.argsort(-gains[passed], kind="stable")]:
        start, stop = ends[:, pair].tolist()
        # Where a clearer pair accounts for a part of these edges, nothing is left to explain.
        if rest[start] != innovations[start] or rest[stop] != innovations[stop]:
            continue
        height = float(heights[pair])
        part = rest[start : stop + len(filter_) - 1]
        part -= height * np.convolve(np.ones(stop - start), filter_)[: len(part)]
        patches.append(Patch(start, stop, height, float(gains[pair]) - _DISCOUNT))
    return patches, rest


def _common_steps(
    edges: FloatArray, scale: FloatArray, opposite: FloatArray, tail: Tail
) -> tuple[FloatArray, FloatArray]:
    """Find the step that explains both edges of a pair best, and by how much better than chance, float64[k].

    Args:
        edges: float64, shape (2, k), the innovations.
        scale: float64, shape (2, k), their local standard deviation.
        opposite: float64, shape (k,), the second one of a step of height 1.
        tail: The evidence of one innovation.
    """
    ups, downs = edges[0], edges[1] / opposite
    weights = scale[0] ** -2.0, (opposite / scale[1]) ** 2
    mean = (ups * weights[0] + downs * weights[1]) / (weights[0] + weights[1])
    heights = np.array((mean, ups, downs))
    left = np.array((ups - heights, edges[1] - opposite * heights))
    gains = tail(edges / scale)[:, None] - tail(left / scale[:, None])
    # A step explains both edges, or it is none.
    both = np.where(gains.min(axis=0) > 0, gains.sum(axis=0), 0.0)
    return np.choose(np.argmax(both, axis=0), heights), both.max(axis=0)


def heights_of(patches: list[Patch], n: int) -> FloatArray:
    """Sum the patches' heights at each reading, float64[n]."""
    steps = np.zeros(n + 1)
    for patch in patches:
        steps[patch.start] += patch.height
        steps[patch.stop] -= patch.height
    return np.cumsum(steps)[:n]
