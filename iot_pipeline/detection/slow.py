"""Ramps and drifts, which neither begin nor end with a jump: known shapes in hourly means."""

from dataclasses import dataclass

import numpy as np

from iot_pipeline.detection.autoregression import fit_autoregression
from iot_pipeline.detection.cycles import DAY
from iot_pipeline.detection.prepare import sampled
from iot_pipeline.detection.tails import calibrated
from iot_pipeline.detection.types import BoolArray, FloatArray, IntArray

_A_DAY = 24  # means
_MORE_THAN_A_DAY = 1.1  # by which the next mean is predicted, so that the day's rhythm is known
_CLIP = 4.0  # standard deviations of an innovation: jumps are judged elsewhere
_OUTLIER = 6.0  # likewise of a mean, in the fit
_DAYS = 20  # before and after, in which drifts are as usual
_FEWEST_SPANS = 4  # of the shape in a series
_EMPTY = 0.3  # the share of a shape's hours that may be without a reading
_LEAST = 0.1  # of the usual size


@dataclass(frozen=True, eq=False)
class Shape:
    """What a slow deviation looks like.

    Attributes:
        days: How long it takes.
        rise: The share of it that is spent on climbing.
        far: The evidence of a deviation that one reading in 500 exceeds. Slow ones last, so it is more.
        core: The share of it, in the middle, that is called anomalous.
    """

    days: float
    rise: float
    far: float
    core: float

    def heights(self, a_day: int) -> FloatArray:
        """Give its heights at so many places a day, float64[k]."""
        count = max(round(self.days * a_day), 2)
        place = np.arange(1, count + 1) / (count + 1)
        return np.minimum(1.0, np.minimum(place, 1.0 - place) / self.rise)


SHAPES = (
    Shape(days=0.5, rise=1 / 6, far=11.0, core=1.0),
    Shape(days=4.0, rise=0.5, far=17.0, core=0.5),
)


def slow_evidence(seconds: FloatArray, values: FloatArray, step: float) -> FloatArray:
    """Give the evidence that a slow deviation goes on, float64[n].

    Each shape is looked for with a matched filter on whitened means (Turin, "An introduction to matched
    filters", IRE Transactions on Information Theory 6, 1960), in units of what it usually finds around.

    Args:
        seconds: float64, shape (n,), ascending, without long pauses.
        values: float64, shape (n,).
        step: The usual time between two readings, in seconds.
    """
    a_day = int(min(_A_DAY, DAY // max(step, 1e-6)))
    place: IntArray = (seconds * (a_day / DAY)).astype(np.intp)
    count = np.bincount(place)
    full = np.flatnonzero(count)
    nothing = np.zeros(len(values))
    if a_day < _A_DAY // 4 or len(count) < _FEWEST_SPANS * a_day:
        return nothing
    means = np.bincount(place, values)[full] / count[full]
    means = np.interp(np.arange(len(count)), full, means)
    usable = np.ones(len(means), dtype=bool)
    order = round(_MORE_THAN_A_DAY * a_day)
    usable[:order] = False
    means -= float(np.median(sampled(means)))
    bound = _OUTLIER * 1.4826 * float(np.median(sampled(np.abs(means)))) + 1e-12
    clipped = np.clip(means, -bound, bound)
    whitening = np.append(1.0, -fit_autoregression(clipped, usable, order)[:-1])
    rest = np.convolve(means, whitening)[: len(means)]
    rest[:order] = 0.0
    bound = _CLIP * 1.4826 * float(np.median(sampled(np.abs(rest)))) + 1e-12
    rest = np.clip(rest, -bound, bound)
    evidence = np.zeros(len(means))
    for shape in SHAPES:
        heights = shape.heights(a_day)
        if len(means) >= _FEWEST_SPANS * len(heights):
            found = _search(rest, np.convolve(heights, whitening), shape, a_day=a_day, empty=count == 0)
            np.maximum(evidence, found, out=evidence)
    return evidence[place]


def _search(
    rest: FloatArray, template: FloatArray, shape: Shape, *, a_day: int, empty: BoolArray
) -> FloatArray:
    """Give each mean the greatest evidence of a shape whose core it is in, float64[n]."""
    n, length = len(rest), len(shape.heights(a_day))
    order = len(template) - length
    match = np.correlate(np.concatenate((rest, np.zeros(len(template) - 1))), template, "valid")
    starts = n - length + 1
    z = match[:starts] / _around(match[:starts], a_day, length)
    evidence = calibrated(z[order:], shape.far)(z) if starts > order + 1 else np.zeros(starts)
    evidence[:order] = 0.0
    gaps = np.concatenate(([0], np.cumsum(empty)))
    evidence[gaps[length:] - gaps[:-length] > _EMPTY * length] = 0.0
    width = max(round(shape.core * length), 1)
    first = (length - width) // 2
    padded = np.concatenate((np.zeros(first + width - 1), evidence, np.zeros(length - first)))
    return _running_maximum(padded, width)[:n]


def _running_maximum(values: FloatArray, width: int) -> FloatArray:
    """Give the greatest of each `width` neighbours, float64[n - width + 1], by doubling."""
    reach = 1
    while reach < width:
        step = min(reach, width - reach)
        values = np.maximum(values[:-step], values[step:])
        reach += step
    return values


def _around(match: FloatArray, a_day: int, length: int) -> FloatArray:
    """Give the usual size in the twenty days before and after, one and a half lengths around left out."""
    size = np.abs(match)
    size = np.minimum(size, 6.0 * float(np.median(sampled(size))) + 1e-12)
    total = np.concatenate(([0.0], np.cumsum(size)))
    place = np.arange(len(match))
    whole = float(size.mean())
    sums, counts = np.full(len(match), 5.0 * length * whole), np.full(len(match), 5.0 * length)
    for width, sign in ((_DAYS * a_day, 1.0), (3 * length // 2, -1.0)):
        low, high = np.maximum(place - width, 0), np.minimum(place + width + 1, len(match))
        sums += sign * (total[high] - total[low])
        counts += sign * (high - low)
    around: FloatArray = np.sqrt(np.pi / 2) * np.maximum(
        sums / np.maximum(counts, 1.0), _LEAST * whole + 1e-12
    )
    return around
