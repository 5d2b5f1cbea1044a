"""What the detector returns: plain frozen values that can be pickled, stored and drawn.

No computation lives here beyond evaluating a fitted curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iot_pipeline.detection.summer_time import clock_seconds

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]
TimeArray = npt.NDArray[np.datetime64]
Intervals = Sequence[tuple[int, int]]
"""Times from … to, both included, in microseconds since the epoch (UTC); without overlaps."""

_MANY = 20  # times as many places as points


@dataclass(frozen=True, eq=False)
class Curve:
    """A polygon through points; two points close together make a jump.

    Attributes:
        x: float64, shape (k,), ascending.
        y: float64, shape (k,).
    """

    x: FloatArray
    y: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate at x, float64[n]; beyond the ends the last value holds."""
        if self.y.min() == self.y.max():
            return np.full(len(x), self.y[0])
        if len(x) < _MANY * len(self.x) or np.any(x[1:] < x[:-1]):
            return np.interp(x, self.x, self.y)
        # Where x ascends, whole parts of it lie on one side of the polygon: several times faster.
        counts = np.diff(np.searchsorted(x, self.x), prepend=0, append=len(x))
        slopes = np.diff(self.y) / np.maximum(np.diff(self.x), np.finfo(np.float64).tiny)
        slopes = np.concatenate(([0.0], np.where(np.diff(self.x) > 0, slopes, 0.0), [0.0]))
        result: FloatArray = x - np.repeat(np.append(self.x[0], self.x), counts)
        result *= np.repeat(slopes, counts)
        result += np.repeat(np.append(self.y[0], self.y), counts)
        return result


@dataclass(frozen=True, eq=False)
class Cycle:
    """A curve that repeats, as values at equally spaced phases.

    Attributes:
        period: The period in seconds.
        table: float64, shape (k,), the values at the phases 0, 1/k, 2/k, ...
        clock_changes: float64, in seconds, the beginnings and ends of summer time that the phases follow;
            empty where they follow UTC.
    """

    period: float
    table: FloatArray
    clock_changes: FloatArray = field(default_factory=lambda: np.empty(0))

    def __call__(self, seconds: FloatArray) -> FloatArray:
        """Evaluate at seconds since the first reading, float64[n]."""
        k = len(self.table)
        closed = np.concatenate((self.table, self.table[:2]))
        turns = clock_seconds(seconds, self.clock_changes) / self.period
        place = (turns - np.floor(turns)) * k
        left = place.astype(np.intp)
        return closed.take(left) + (place - left) * np.diff(closed, append=0.0).take(left)


@dataclass(frozen=True)
class Event:
    """One anomaly: a run of readings that belong together.

    Attributes:
        kind: spike, burst, level_shift, drift, stuck, variance or gap.
        start: datetime64[us], UTC, the first flagged reading. A gap starts at the last reading before it.
        end: datetime64[us], UTC, the last flagged reading.
        n_points: How many readings are flagged.
        peak_score: The greatest score among them, in standard deviations of a Gaussian as rare.
        mean_residual: Their mean deviation from the model, signed, in the unit of the values.
    """

    kind: str
    start: np.datetime64
    end: np.datetime64
    n_points: int
    peak_score: float
    mean_residual: float


@dataclass(frozen=True, eq=False, kw_only=True)
class SensorModel:
    """The regular behaviour of a sensor: a trend, repeating cycles and noise.

    Where readings are judged by where the last ones lead, the model is called "autoregression", has no cycles
    and no breakpoints, and its trend and noise are the predictions and their errors at the times of the
    readings, with straight lines between.

    Attributes:
        name: The kind of model, such as "quadratic" or "piecewise linear + daily cycle".
        breakpoints: datetime64[us], UTC, where the trend bends or jumps.
        parameters: What describes the model best, (name, value) pairs, such as ("period_days", 365.2).
        noise_sd: The typical standard deviation of the noise, in the unit of the values.
        tail_freedom: Degrees of freedom of the noise's Student t; infinite for Gaussian noise.
        autocorrelation: The correlation of the noise of neighbouring readings; 0 where insignificant.
        n_points: How many readings the model was fitted to.
        misfit: Whether the model explains too little: all scores are divided or, in a short series, only
            stuck values and gaps are flagged. `reasoning` says so.
        reasoning: What the sensor does and which readings don't fit, in words; then, in figures, why.
        origin: datetime64[us], UTC, the zero of the curves' time.
        trend: The trend over seconds since `origin`, in the unit of the values.
        cycles: The repeating parts over seconds since `origin`, in the unit of the values.
        noise: The local standard deviation of the noise over seconds since `origin`.
        noise_cycle: The logarithm of its factor at a time of the day or the week; None without a rhythm.
    """

    name: str
    noise_sd: float
    n_points: int
    origin: np.datetime64
    trend: Curve
    noise: Curve
    breakpoints: tuple[np.datetime64, ...] = ()
    parameters: tuple[tuple[str, float], ...] = ()
    tail_freedom: float = np.inf
    autocorrelation: float = 0.0
    misfit: bool = False
    reasoning: str = ""
    cycles: tuple[Cycle, ...] = ()
    noise_cycle: Cycle | None = None

    def expected_at(self, timestamps: TimeArray) -> FloatArray:
        """Evaluate the model at datetime64[n], UTC; float64[n] in the unit of the values."""
        seconds = self._seconds(timestamps)
        return sum((cycle(seconds) for cycle in self.cycles), self.trend(seconds))

    def noise_at(self, timestamps: TimeArray) -> FloatArray:
        """Evaluate the noise's standard deviation at datetime64[n], UTC; float64[n]."""
        seconds = self._seconds(timestamps)
        noise = self.noise(seconds)
        return noise * np.exp(self.noise_cycle(seconds)) if self.noise_cycle else noise

    def _seconds(self, timestamps: TimeArray) -> FloatArray:
        since: FloatArray = (timestamps.astype("datetime64[us]") - self.origin).astype(np.float64)
        return since / 1e6


@dataclass(frozen=True, eq=False)
class Detection:
    """The verdict on one sensor; all arrays are aligned with the readings as they were handed in.

    Attributes:
        flags: bool, shape (n,), whether a reading is anomalous.
        scores: float64, shape (n,), in standard deviations: a Gaussian reading so far off, on either side, is
            as rare as this reading or, within an event, as the whole event where that is rarer. The same
            unit however a sensor is judged, so that scores of different sensors compare; 5 is p = 5.7e-7.
            NaN where the reading or its time was missing or infinite.
        expected: float64, shape (n,), the model's value; NaN where the time was missing.
        kinds: str, shape (n,), the kind of the anomaly, "" where not flagged.
        event_ids: int, shape (n,), an index into `events`, -1 where not flagged.
        events: The anomalies in the order of time.
        model: The regular behaviour that the readings were compared with.
    """

    flags: BoolArray
    scores: FloatArray
    expected: FloatArray
    kinds: npt.NDArray[np.str_]
    event_ids: IntArray
    events: tuple[Event, ...]
    model: SensorModel
