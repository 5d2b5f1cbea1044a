"""Ramps and drifts, which neither begin nor end with a jump: known shapes in hourly means."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from iot_pipeline.detection.autoregression import fit_autoregression
from iot_pipeline.detection.cycles import DAY
from iot_pipeline.detection.day_cells import sums_around
from iot_pipeline.detection.prepare import sampled
from iot_pipeline.detection.tails import calibrated
from iot_pipeline.detection.types import BoolArray, FloatArray, IntArray

_A_DAY = 24  # means
_MORE_THAN_A_DAY = 1.1  # by which the next mean is predicted, so that the day's rhythm is known
_CLIP = 4.0  # standard deviations of an innovation: jumps are judged elsewhere
_OUTLIER = 6.0  # likewise of a mean, in the fit
_DAYS = 20  # before and after, in which drifts are as usual
_ROUNDING = 1e-9  # median deviations; what is smaller is no shape
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
    Shape(days=0.5, rise=1 / 6, far=12.0, core=1.0),
    Shape(days=4.0, rise=0.5, far=20.0, core=0.5),
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
    if a_day < _A_DAY // 4 or len(count) < _FEWEST_SPANS * a_day:
        return np.zeros(len(values))
    full = np.flatnonzero(count)
    means = np.bincount(place, values)[full] / count[full]
    means = np.interp(np.arange(len(count)), full, means)
    order = round(_MORE_THAN_A_DAY * a_day)
    usable = np.arange(len(means)) >= order
    means -= float(np.median(sampled(means)))
    whitening = np.append(1.0, -fit_autoregression(_clipped(means, _OUTLIER), usable, order)[:-1])
    rest = np.convolve(means, whitening)[: len(means)]
    rest[:order] = 0.0
    rest[np.abs(rest) < _ROUNDING] = 0.0
    rest = _clipped(rest, _CLIP)
    evidence = np.zeros(len(means))
    for shape in SHAPES:
        heights = shape.heights(a_day)
        if len(means) >= _FEWEST_SPANS * len(heights):
            z = _matches(rest, heights, whitening, a_day)
            found = _evidence(z, shape, order=order, length=len(heights), empty=count == 0)
            np.maximum(evidence, found, out=evidence)
    return evidence[place]


def _clipped(values: FloatArray, deviations: float) -> FloatArray:
    bound = deviations * 1.4826 * float(np.median(sampled(np.abs(values)))) + 1e-12
    return np.clip(values, -bound, bound)


def _matches(rest: FloatArray, heights: FloatArray, whitening: FloatArray, a_day: int) -> FloatArray:
    """Tell how well a shape fits from each mean on, float64[n - length + 1], in units of its usual size.

    That is the one in the twenty days before and after, one and a half lengths around left out.
    """
    length = len(heights)
    template = np.convolve(heights, whitening)
    match = np.correlate(np.concatenate((rest, np.zeros(len(template) - 1))), template, "valid")
    match = match[: len(rest) - length + 1]
    size = np.abs(match)
    size = np.minimum(size, 6.0 * float(np.median(sampled(size))) + 1e-12)
    whole = float(size.mean())
    sums, counts = (
        5.0 * length * level + sums_around(each, _DAYS * a_day) - sums_around(each, 3 * length // 2)
        for each, level in ((size, whole), (np.ones(len(size)), 1.0))
    )
    usual = np.maximum(sums / np.maximum(counts, 1.0), _LEAST * whole + 1e-12)
    z: FloatArray = match / (np.sqrt(np.pi / 2) * usual)
    return z


def _evidence(z: FloatArray, shape: Shape, *, order: int, length: int, empty: BoolArray) -> FloatArray:
    """Give each mean the greatest evidence of a shape whose core it is in, float64[n]."""
    evidence = calibrated(z[order:], shape.far)(z) if len(z) > order + 1 else np.zeros(len(z))
    evidence[:order] = 0.0
    gaps = np.concatenate(([0], np.cumsum(empty)))
    evidence[gaps[length:] - gaps[:-length] > _EMPTY * length] = 0.0
    width = max(round(shape.core * length), 1)
    first = (length - width) // 2
    begun = np.concatenate((np.zeros(first), evidence, np.zeros(length - 1 - first)))  # where a core begins
    greatest: FloatArray = ndimage.maximum_filter1d(begun, width, mode="constant", origin=(width - 1) // 2)
    return greatest
