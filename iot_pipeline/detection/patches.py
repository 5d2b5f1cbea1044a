"""Spikes, bursts and shifts as one thing: readings between two edges that lie apart by a constant."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.tails import Tail
from iot_pipeline.detection.types import FloatArray, IntArray

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
    step_response = np.cumsum(filter_)
    back = np.minimum(step_response - 1.0, -_LEAST_RETURN)  # an edge's opposite after so many readings
    z = innovations / scale
    edges = np.flatnonzero(np.abs(z) > _EDGE)
    found = []
    for between in range(1, min(_MOST_BETWEEN, len(edges))):
        first, second = edges[:-between], edges[between:]
        near = second - first <= min(longest, _LONGEST)
        if not near.any():
            break
        near &= z[first] * z[second] < 0
        if near.any():
            found.append(_tested((first[near], second[near]), innovations, scale, back, tail))
    if not found:
        return [], innovations
    pairs = np.concatenate(found)
    pairs = pairs[np.argsort(-pairs[:, 3], kind="stable")]
    return _chosen(pairs, innovations, filter_)


def _chosen(
    pairs: FloatArray, innovations: FloatArray, filter_: FloatArray
) -> tuple[list[Patch], FloatArray]:
    """Accept pairs, the clearest first, and take out of the innovations what each has put in."""
    rest = innovations.copy()
    taken: set[int] = set()
    patches = []
    for place in pairs:
        start, stop = int(place[0]), int(place[1])
        height, evidence = float(place[2]), float(place[3])
        edges = [start, stop]
        # Where a clearer pair accounts for a part of these edges, nothing is left to explain.
        if taken & set(edges) or not np.array_equal(rest[edges], innovations[edges]):
            continue
        taken |= set(edges)
        part = rest[start : stop + len(filter_) - 1]
        part -= height * np.convolve(np.ones(stop - start), filter_)[: len(part)]
        patches.append(Patch(start, stop, height, evidence - _DISCOUNT))
    return patches, rest


def _tested(
    pairs: tuple[IntArray, IntArray],
    innovations: FloatArray,
    scale: FloatArray,
    back: FloatArray,
    tail: Tail,
) -> FloatArray:
    """Test pairs of edges: start, stop, height and evidence of those that pass, float64[k, 4]."""
    first, second = pairs
    away = second - first
    opposite = back[np.minimum(away, len(back) - 1)]
    ups, downs = innovations[first], innovations[second] / opposite
    weights = scale[first] ** -2.0, (opposite / scale[second]) ** 2
    mean = (ups * weights[0] + downs * weights[1]) / (weights[0] + weights[1])
    before = tail(np.array((ups / scale[first], innovations[second] / scale[second])))
    heights = np.array((mean, ups, downs))
    gains = before[:, None] - tail(
        np.array(
            (
                (ups - heights) / scale[first],
                (innovations[second] - opposite * heights) / scale[second],
            )
        )
    )
    # A step explains both edges, or it is none.
    both = np.where(gains.min(axis=0) > 0, gains.sum(axis=0), 0.0)
    best = np.argmax(both, axis=0)
    pick = np.arange(len(first))
    gain = both[best, pick]
    passed = gain > _PRICE + np.log(away)
    tested: FloatArray = np.column_stack((first, second, heights[best, pick], gain))[passed]
    return tested


def heights_of(patches: list[Patch], n: int) -> FloatArray:
    """Sum the patches' heights at each reading, float64[n]."""
    steps = np.zeros(n + 1)
    for patch in patches:
        steps[patch.start] += patch.height
        steps[patch.stop] -= patch.height
    total: FloatArray = np.cumsum(steps)[:n]
    return total
