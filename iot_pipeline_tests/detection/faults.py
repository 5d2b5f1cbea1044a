"""Series that follow themselves closely, as real sensors do, and faults of known size to put into them."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import signal

FloatArray = npt.NDArray[np.float64]
TimeArray = npt.NDArray[np.datetime64]
Fault = tuple[int, int]

FAULTS = (
    *(("spike", size) for size in (0.15, 0.3, 0.6)),
    *(("shift", size) for size in (0.1, 0.2, 0.4)),
    *(("stuck", days) for days in (0.25, 1.0)),
    *(("ramp", size) for size in (0.2, 0.4)),
    *(("drift", size) for size in (0.2, 0.4)),
    *(("noise", size) for size in (0.05, 0.1)),
)
"""Kinds and sizes: shares of a series' range, or days."""

_COUNTS = {"spike": 5, "shift": 2, "stuck": 2, "ramp": 2, "drift": 1, "noise": 2}
_MINUTES = (10, 15, 30, 60)
_RESOLUTIONS = (0.0, 0.002, 0.01)


def put_faults(
    times: TimeArray, readings: FloatArray, kind: str, size: float, rng: np.random.Generator
) -> tuple[FloatArray, list[Fault]]:
    """Put faults of a kind into a series.

    A ramp is a shift of half a day that comes and goes within two hours, a drift climbs for two days and
    returns in two.

    Args:
        times: datetime64, shape (n,), ascending.
        readings: float64, shape (n,).
        kind: One of `FAULTS`.
        size: A share of the range from the 1st to the 99th percentile; days of a stuck value.
        rng: Where the faults lie, and their signs.

    Returns:
        The new readings, at the old ones' resolution, and the faults' first readings and the ones after.
    """
    values = np.copy(readings)
    n = len(values)
    a_day = round(float(np.timedelta64(1, "D") / np.median(np.diff(times))))
    a_day = min(max(a_day, 12), n // 8)
    height = size * float(np.subtract(*np.quantile(values, (0.99, 0.01))))
    length = {"spike": 1, "drift": 4 * a_day, "stuck": round(size * a_day)}.get(kind, a_day // 2)
    length = max(min(length, n // 10), 1 if kind == "spike" else 6)
    edges = np.linspace(0.08, 0.9, _COUNTS[kind] + 1) * n
    faults = []
    for low, high in pairwise(edges):
        start = int(rng.uniform(low, max(low + 1, high - length)))
        stop, sign = min(start + length, n), rng.choice((-1, 1))
        place = np.arange(stop - start)
        if kind == "stuck":
            values[start:stop] = values[start]
        elif kind == "noise":
            values[start:stop] += height * rng.standard_normal(stop - start)
        elif kind == "ramp":
            rise = max(a_day // 12, 1)
            values[start:stop] += sign * height * np.minimum(1, np.minimum(place, place[::-1]) / rise)
        elif kind == "drift":
            values[start:stop] += sign * height * (1 - np.abs(np.linspace(-1, 1, stop - start)))
        else:
            values[start:stop] += sign * height
        faults.append((start, stop))
    steps = np.diff(np.unique(readings))
    resolution = float(steps.min()) if len(steps) else 0.0
    if resolution and len(steps) < n / 4 and kind != "stuck":
        values = np.round(values / resolution) * resolution
    return values, faults


def real_like(seed: int, *, points: int = 6_000) -> tuple[TimeArray, FloatArray]:
    """Draw a series: weather that wanders with heavy tails by day, days that differ, a coarse resolution.

    Each fifth one stands still every few days, and others are drowned in appliances.

    Returns:
        datetime64[s] and float64, both of shape (n,); a week is missing from each third series.
    """
    rng = np.random.default_rng(seed)
    minutes = _MINUTES[seed % len(_MINUTES)]
    day = 1_440 // minutes
    hour = np.arange(points) % day / day * 24
    peak, loudness = rng.uniform(8, 18), rng.uniform(1.0, 6.0)
    loud = 1.0 + loudness * np.exp(-(((hour - peak) / 3) ** 2))
    memory = np.exp(-minutes / 1_440 / rng.uniform(0.3, 4.0))
    weather = signal.lfilter([1.0], [1.0, -memory], rng.standard_t(rng.uniform(2.5, 6.0), points) * loud)
    weather /= weather.std()
    heights = rng.uniform(0.6, 1.4, points // day + 2)
    days = np.interp(np.arange(points) / day, np.arange(len(heights)), heights)
    values = weather + rng.uniform(0.3, 2.0) * days * np.cos((hour - peak) / 12 * np.pi)
    values += rng.normal(0.0, rng.choice([0.0, 0.02, 0.05]), points)
    if seed % 5 == 4:
        for start in rng.integers(0, points - 100, 16):
            values[start : start + rng.integers(8, 60)] = values[start]
    elif seed % 7 == 6:
        values = np.exp(0.5 * values) + 0.15 * rng.lognormal(0.0, 0.8, points)
    resolution = _RESOLUTIONS[seed % len(_RESOLUTIONS)] * float(np.ptp(values))
    values = np.round(values / resolution) * resolution if resolution else values
    times = np.datetime64("2014-01-01", "s") + (np.arange(points) * minutes * 60).astype("timedelta64[s]")
    kept = np.ones(points, dtype=bool)
    kept[points // 2 : points // 2 + 7 * day] = seed % 3 != 2
    return times[kept], values[kept]
