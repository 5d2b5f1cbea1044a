"""Bring readings of any order, unit and size into one shape: finite, sorted, centred and scaled."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection.types import BoolArray, FloatArray, IntArray, Intervals, TimeArray

Scalar = TypeVar("Scalar", bound=np.generic)

_HUGE = 1e300  # beyond this a difference of two values may overflow
_FAR = 1e9  # scaled values beyond this are as far away as anything can be
_SAMPLE = 20_000
_LATTICE_SHARE = 0.01  # the share of changing readings from which their smallest change tells the resolution,
_COARSEST = 20.0  # unless it is so many times the usual deviation: then only spikes change


@dataclass(frozen=True, eq=False)
class Readings:
    """The usable readings of a sensor in the order of time.

    Attributes:
        order: int, shape (n,), where each reading stood in the input.
        origin: datetime64[us], the first time.
        seconds: float64, shape (n,), since the first reading, ascending.
        span: The last of them.
        x: float64, shape (n,), the same time in [-1, 1]; seconds where the span is 0.
        values: float64, shape (n,), centred and scaled.
        centre: The median of the values.
        scale: The unit of the scaled values.
        step: The usual time between two readings, in seconds.
        floor: The smallest standard deviation that noise can have, in scaled units.
        clock: float64, shape (n,), seconds that stand still during maintenance.
        left_out: How many readings were made then.
    """

    order: IntArray
    origin: np.datetime64
    seconds: FloatArray
    span: float
    x: FloatArray
    values: FloatArray
    centre: float
    scale: float
    step: float
    floor: float
    clock: FloatArray
    left_out: int = 0


def prepare(times: TimeArray, values: FloatArray, maintenance: Intervals = ()) -> Readings:
    """Drop what is not finite or is of a maintenance, sort by time, scale by the median absolute deviation.

    Centring by the median and scaling by the MAD is Hampel's proposal (Hampel, "The influence curve and its
    role in robust estimation", JASA 69, 1974). NaT, NaN and infinities are dropped; nothing may be left.
    """
    usable: BoolArray = np.isfinite(values) & ~np.isnat(times)
    instants = times.astype(np.int64)
    within = np.zeros(len(times), dtype=bool)
    for start, end in maintenance:
        within |= (start <= instants) & (instants <= end)
    order: IntArray = np.flatnonzero(usable & ~within)
    left_out = int(np.count_nonzero(usable & within))
    ticks = instants[order]
    if np.any(ticks[1:] < ticks[:-1]):
        place = np.argsort(ticks, kind="stable")
        order, ticks = order[place], ticks[place]
    if not len(order):
        nothing = np.empty(0)
        origin = np.datetime64(0, "us")
        return Readings(order, origin, nothing, 0.0, nothing, nothing, 0.0, 1.0, 0.0, 1.0, nothing, left_out)

    kept = np.clip(values[order], -_HUGE, _HUGE)
    centre = float(np.median(sampled(kept)))
    deviations = kept - centre
    distance = np.abs(sampled(deviations))
    scale = float(np.median(distance)) or float(distance.mean()) or abs(centre) or 1.0
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.clip(deviations / scale, -_FAR, _FAR)
        resolution = abs(centre) * 1e-15 / scale
    changes = np.abs(np.diff(scaled))
    changes = changes[changes > 0]
    step = float(changes.min()) if len(changes) > _LATTICE_SHARE * len(scaled) else 0.0
    lattice = step / 2 if step < _COARSEST else 0.0
    seconds = (ticks - ticks[0]) / 1e6
    clock = seconds
    for start, end in maintenance:
        clock = clock - np.clip(ticks - start, 0, end - start) / 1e6
    span = float(seconds[-1])
    return Readings(
        order=order,
        origin=times[order[0]],
        seconds=seconds,
        span=span,
        x=seconds * (2.0 / span) - 1.0 if span > 0 else seconds,
        values=scaled,
        centre=centre,
        scale=scale,
        step=float(np.median(sampled(np.diff(ticks)))) / 1e6 if len(ticks) > 1 else 0.0,
        floor=max(lattice, resolution, 1e-9),
        clock=clock,
        left_out=left_out,
    )


def sampled(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """Take some 20,000 values at equal steps: enough for a median, and several times faster."""
    return values[:: max(1, len(values) // _SAMPLE)]
