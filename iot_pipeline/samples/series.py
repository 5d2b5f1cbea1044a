"""Draws a synthetic sensor with labels: a function of time, noise, and injected anomalies.

Used by the sample bucket and the detection benchmark. The result depends only on the arguments and the random
generator passed in; no files are read or written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
TimeArray = npt.NDArray[np.datetime64]

_MEAN_MINUTES = 15.0
_DAY = 86_400.0
_YEAR = 365.25 * _DAY


@dataclass(frozen=True, eq=False)
class LabelledSeries:
    """A synthetic sensor with the truth about it.

    Attributes:
        timestamps: datetime64[s], shape (n,), UTC, ascending.
        values: float64, shape (n,), the readings.
        expected: float64, shape (n,), the noise-free function of time.
        noise_sd: float64, shape (n,), the standard deviation of the regular noise around each reading.
        labels: str, shape (n,), the kind of anomaly of each reading, "" for a regular one.
        events: The anomalies as (kind, start index, stop index), stop excluded, ascending.
    """

    timestamps: TimeArray
    values: FloatArray
    expected: FloatArray
    noise_sd: FloatArray
    labels: npt.NDArray[np.str_]
    events: tuple[tuple[str, int, int], ...]


def irregular_timestamps(rng: np.random.Generator, *, start: str | np.datetime64, days: float) -> TimeArray:
    """Draw the times of readings with irregular steps of 5 to 30 minutes, 15 on average.

    Args:
        rng: The random generator.
        start: The first time, UTC.
        days: The span to cover.

    Returns:
        datetime64[s], shape (n,), ascending, on whole minutes.
    """
    total = days * 1440.0
    count = int(total / _MEAN_MINUTES * 1.1) + 50
    # A beta distribution scaled to [1/3, 2]; with a = 2 and b = 3 its mean is 1, at 2/5 of that range.
    steps = np.maximum(np.rint((1 / 3 + 5 / 3 * rng.beta(2.0, 3.0, count)) * _MEAN_MINUTES), 1.0)
    minutes = np.concatenate(([0.0], np.cumsum(steps)))
    seconds = (minutes[minutes < total] * 60).astype("timedelta64[s]")
    times: TimeArray = np.array(start, dtype="datetime64[s]") + seconds
    return times


def make_series(
    rng: np.random.Generator,
    timestamps: TimeArray,
    *,
    family: str,
    noise: str = "gaussian",
    anomalies: Sequence[str] = (),
    spike_sd: tuple[float, float] = (6.0, 15.0),
    readings_per_spike: int = 1_500,
) -> LabelledSeries:
    """Draw one sensor over the given times.

    Args:
        rng: The random generator; the same state gives the same sensor.
        timestamps: datetime64, shape (n,), UTC, ascending.
        family: One of ``FAMILIES``.
        noise: One of ``NOISES``; the standard deviation is about 10.
        anomalies: Any of ``ANOMALIES``. A gap removes readings; the first reading after it has the label.
        spike_sd: The range of spike sizes, in standard deviations of the noise. In heavy-tailed noise, which
            reaches six standard deviations by itself, spikes are three times as large.
        readings_per_spike: The mean number of readings per spike.

    Raises:
        ValueError: The family, the noise or an anomaly is unknown.
    """
    for name, known in ((family, FAMILIES), (noise, NOISES), *((kind, ANOMALIES) for kind in anomalies)):
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
    times = timestamps.astype("datetime64[s]")
    n = len(times)
    seconds = (times - times[:1]).astype(np.float64)
    span = max(float(seconds[-1]), 1.0) if n else 1.0

    expected = _FAMILIES[family](rng, seconds, span)
    standard, noise_sd = _NOISES[noise](rng, seconds / span)
    labels = np.zeros(n, dtype=f"<U{max(map(len, ANOMALIES))}")
    values = expected + noise_sd * standard
    if noise == "quantised":
        step = float(rng.choice([1.0, 2.0, 5.0]))
        values = np.rint(values / step) * step

    keep = np.ones(n, dtype=bool)
    events = _place(rng, n, anomalies, readings_per_spike)
    for kind, start, stop in events:
        here = slice(start, stop)
        if kind == "gap":
            keep[start : stop - 1] = False
            labels[stop - 1] = kind
            continue
        if kind == "stuck":
            values[here] = values[start]
        elif kind == "variance":
            values[here] = expected[here] + noise_sd[here] * standard[here] * rng.uniform(3.5, 6.0)
        else:
            scale = 3.0 if kind == "spike" and noise == "student_t" else 1.0
            shape = _offset(rng, kind, stop - start, spike_sd)
            values[here] += rng.choice([-1.0, 1.0]) * scale * shape * noise_sd[here]
        if noise == "quantised":
            values[here] = np.rint(values[here] / step) * step
        labels[here] = kind

    place = np.concatenate(([0], np.cumsum(keep)))
    return LabelledSeries(
        timestamps=times[keep],
        values=values[keep],
        expected=expected[keep],
        noise_sd=noise_sd[keep],
        labels=labels[keep],
        events=tuple((kind, int(place[start]), int(place[stop])) for kind, start, stop in events),
    )


def _offset(rng: np.random.Generator, kind: str, length: int, spike_sd: tuple[float, float]) -> FloatArray:
    """Return the deviation of an additive anomaly in standard deviations, float64[length]."""
    if kind == "spike":
        return np.full(length, rng.uniform(*spike_sd))
    if kind == "burst":
        return rng.uniform(4.0, 9.0) * rng.uniform(0.8, 1.2, length)
    if kind == "level_shift":
        return np.full(length, rng.uniform(2.5, 6.0))
    return rng.uniform(5.0, 9.0) * np.arange(1, length + 1, dtype=np.float64) / length  # drift


# By kind: the number of events, the range of their lengths as a share of all readings, and its bounds in
# readings. Together they cover less than a twentieth of the readings. A short series gets one of each.
_EVENTS: dict[str, tuple[int, float, float, int, int]] = {
    "burst": (3, 0.0005, 0.001, 8, 60),
    "level_shift": (2, 0.003, 0.008, 20, 1000),
    "stuck": (2, 0.0005, 0.003, 15, 300),
    "drift": (1, 0.005, 0.01, 30, 1200),
    "variance": (2, 0.002, 0.006, 30, 800),
    "gap": (2, 0.002, 0.01, 40, 1000),
}
_SHORT = 10_000  # readings
_SMALLEST_WITH_EVENTS = 50


def _place(
    rng: np.random.Generator, n: int, anomalies: Sequence[str], readings_per_spike: int
) -> list[tuple[str, int, int]]:
    """Place the anomalies, each in its own slot of equal width so that none touch; spikes elsewhere."""
    if n < _SMALLEST_WITH_EVENTS:
        return []
    wanted = [
        kind
        for kind in dict.fromkeys(anomalies)
        if kind in _EVENTS
        for _ in range(_EVENTS[kind][0] if n >= _SHORT else 1)
    ]
    rng.shuffle(wanted)
    edges = np.linspace(0.03 * n, 0.97 * n, len(wanted) + 1).astype(int)
    events = []
    free = np.ones(n, dtype=bool)
    free[[0, -1]] = False
    for kind, left, right in zip(wanted, edges[:-1], edges[1:], strict=True):
        _, low, high, shortest, longest = _EVENTS[kind]
        length = int(np.clip(rng.uniform(low, high) * n, shortest, longest))
        length = max(2, min(length, (right - left) // 2))
        start = int(rng.integers(left + length // 4, right - length - length // 4))
        events.append((kind, start, start + length))
        free[max(start - 5, 0) : start + length + 5] = False
    if "spike" in anomalies:
        count = max(3, n // readings_per_spike)
        places = np.sort(rng.choice(np.flatnonzero(free), min(count, int(free.sum())), replace=False))
        isolated = places[np.diff(places, prepend=-9) > 3]  # noqa: PLR2004  spikes are isolated
        events += [("spike", int(i), int(i) + 1) for i in isolated]
    return sorted(events, key=lambda event: event[1])


def _level(rng: np.random.Generator) -> float:
    return float(rng.uniform(-200.0, 200.0))


def _signed(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high) * rng.choice([-1.0, 1.0]))


def _polynomial(degree: int) -> Callable[[np.random.Generator, FloatArray, float], FloatArray]:
    """Return a family of Legendre polynomials with a visible leading term."""

    def draw(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
        lower = [_level(rng), *rng.uniform(-80.0, 80.0, max(degree - 1, 0))]
        leading = [_signed(rng, 40.0, 150.0)] if degree else []
        values: FloatArray = np.polynomial.legendre.legval(2.0 * seconds / span - 1.0, lower + leading)
        return values

    return draw


def _far_cubic(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    """Draw a steady climb from a level far below the other sensors'."""
    level = float(rng.choice([-1_200.0, -11_000.0, -297_000.0])) * rng.uniform(0.9, 1.1)
    u = seconds / span
    bend = rng.uniform(0.1, 0.9)
    return level + abs(level) * rng.uniform(0.02, 0.2) * (bend * u + (1.0 - bend) * u**3)


def _wave(
    rng: np.random.Generator, seconds: FloatArray, period: float, low: float, high: float
) -> FloatArray:
    angle = 2.0 * np.pi * seconds / period + rng.uniform(0.0, 2.0 * np.pi)
    return rng.uniform(low, high) * np.sin(angle)


def _annual(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    """Draw a wave with a period of a year, or of the span if that is shorter, so that it is visible."""
    return _level(rng) + _wave(rng, seconds, min(_YEAR, span), 40.0, 150.0)


def _daily(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:  # noqa: ARG001  a family's signature
    return _level(rng) + _wave(rng, seconds, _DAY, 15.0, 60.0)


def _regimes(rng: np.random.Generator, span: float) -> FloatArray:
    """Draw the edges of 2 to 6 regimes, none shorter than about a tenth of the span, float64[k + 1]."""
    count = int(rng.integers(2, 7))
    lengths = rng.uniform(0.7, 2.0, count)
    return np.concatenate(([0.0], np.cumsum(lengths / lengths.sum()))) * span


def _piecewise(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    """Draw joined straight lines that bend visibly at every breakpoint."""
    edges = _regimes(rng, span)
    slopes = np.cumsum([_signed(rng, 100.0, 500.0) for _ in edges[1:]])
    slopes -= slopes.mean()
    knots = _level(rng) + np.concatenate(([0.0], np.cumsum(slopes * np.diff(edges) / span)))
    return np.interp(seconds, edges, knots)


def _jumps(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    """Draw a level per regime, float64[n]; adjacent levels differ by 3 to 12 standard deviations."""
    edges = _regimes(rng, span)
    levels: FloatArray = np.cumsum([_signed(rng, 30.0, 120.0) for _ in edges[1:]])
    return levels[np.searchsorted(edges[1:-1], seconds, side="right")]


def _piecewise_jumps(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    """Draw a line per regime, with jumps between them."""
    edges = _regimes(rng, span)
    regime = np.searchsorted(edges[1:-1], seconds, side="right")
    slopes = rng.uniform(-250.0, 250.0, len(edges) - 1)
    jumps = np.array([_level(rng)] + [_signed(rng, 40.0, 150.0) for _ in edges[2:]])
    ends = np.cumsum(np.concatenate(([0.0], (slopes * np.diff(edges) / span)[:-1])))
    starts: FloatArray = np.cumsum(jumps) + ends
    return starts[regime] + slopes[regime] * (seconds - edges[:-1][regime]) / span


def _step(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    return _level(rng) + _jumps(rng, seconds, span)


def _piecewise_season(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    return _piecewise(rng, seconds, span) + _wave(rng, seconds, _DAY, 15.0, 60.0)


def _decay(rng: np.random.Generator, seconds: FloatArray, span: float) -> FloatArray:
    tau = rng.uniform(0.08, 0.5) * span
    return _level(rng) + _signed(rng, 80.0, 300.0) * np.exp(-seconds / tau)


def _gaussian(rng: np.random.Generator, u: FloatArray) -> tuple[FloatArray, FloatArray]:
    return rng.standard_normal(len(u)), np.full(len(u), rng.uniform(8.0, 12.0))


def _heteroscedastic(rng: np.random.Generator, u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Draw noise that grows and shrinks slowly, by a factor of 1.5 to 2.5 either way."""
    swing = np.log(rng.uniform(1.5, 2.5)) * np.sin(
        2.0 * np.pi * (rng.uniform(0.5, 3.0) * u + rng.uniform(0.0, 1.0))
    )
    return rng.standard_normal(len(u)), rng.uniform(8.0, 12.0) * np.exp(swing)


def _student_t(rng: np.random.Generator, u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Draw heavy-tailed noise, scaled to a standard deviation of one."""
    freedom = rng.uniform(4.0, 8.0)
    noise = rng.standard_t(freedom, len(u)) * np.sqrt((freedom - 2.0) / freedom)
    return noise, np.full(len(u), rng.uniform(8.0, 12.0))


# A family is a function of (rng, seconds since the first reading, span in seconds).
_FAMILIES: dict[str, Callable[[np.random.Generator, FloatArray, float], FloatArray]] = {
    "constant": _polynomial(0),
    "linear": _polynomial(1),
    "quadratic": _polynomial(2),
    "cubic": _polynomial(3),
    "annual": _annual,
    "daily": _daily,
    "piecewise": _piecewise,
    "piecewise_jumps": _piecewise_jumps,
    "step": _step,
    "piecewise_season": _piecewise_season,
    "decay": _decay,
    "far_cubic": _far_cubic,
}
# A noise is a function of (rng, time in [0, 1]) that returns standardised noise and its standard deviation.
_NOISES: dict[str, Callable[[np.random.Generator, FloatArray], tuple[FloatArray, FloatArray]]] = {
    "gaussian": _gaussian,
    "heteroscedastic": _heteroscedastic,
    "student_t": _student_t,
    "quantised": _gaussian,  # rounded at the end
}

FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
NOISES: tuple[str, ...] = tuple(_NOISES)
ANOMALIES: tuple[str, ...] = ("spike", *_EVENTS)
