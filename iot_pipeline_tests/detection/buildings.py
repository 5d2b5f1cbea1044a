"""Synthetic sensors of a building, with labels: people's days and weeks by the clock, noise with a memory.

Unlike those of `samples.series`, they follow no function of time: some days are busier than others, and the
weather takes its own way.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import signal

from iot_pipeline.berlin import TIME_ZONE
from iot_pipeline.samples.series import LabelledSeries

FloatArray = npt.NDArray[np.float64]
TimeArray = npt.NDArray[np.datetime64]

_OPENING = ([0, 6.5, 8.5, 12, 12.75, 13.5, 16, 19, 24], [0, 0, 0.85, 1, 0.7, 1, 0.9, 0.05, 0])
_WEEKDAYS = np.array([1, 1, 1, 1, 1, 0.12, 0.03])
_READINGS_PER_SPIKE = 3_000
_SPIKE = 8.0  # standard deviations of what is new in a reading
_STUCK = 40  # readings
_SHIFT = 6.0  # standard deviations of the readings around what is expected
_SHIFTED = 0.004  # of the readings


def regular_timestamps(start: str, *, days: int, minutes: int, weeks_missing: int = 2) -> TimeArray:
    """Give the times of readings in equal steps, with some weeks missing in the middle.

    Returns:
        datetime64[s], shape (n,), UTC, ascending.
    """
    count = days * 1_440 // minutes
    missing = weeks_missing * 7 * 1_440 // minutes
    steps = np.delete(np.arange(count), slice(count * 2 // 5, count * 2 // 5 + missing))
    times: TimeArray = np.datetime64(start, "s") + (steps * minutes * 60).astype("timedelta64[s]")
    return times


def make_building(
    rng: np.random.Generator,
    timestamps: TimeArray,
    *,
    kind: str,
    memory: float,
    zone: str = TIME_ZONE,
    anomalies: bool = False,
) -> LabelledSeries:
    """Draw one sensor of a building over the given times.

    Args:
        rng: The source of randomness; the same state gives the same sensor.
        timestamps: datetime64, shape (n,), UTC, ascending.
        kind: One of `KINDS`.
        memory: How much of a deviation is left at the next reading, the coefficient of an AR(1) process.
        zone: Whose clock people live by.
        anomalies: Whether to put in spikes of eight standard deviations of what is new in a reading, a stuck
            value and a shift of the level by six standard deviations of the readings around what is expected.

    Returns:
        The readings and the truth about them; `expected` is the mean over what can't be foreseen.
    """
    times = timestamps.astype("datetime64[s]")
    expected, regular, sd, news = _KINDS[kind](rng, times, _people(times, zone))
    n = len(times)
    values = regular + signal.lfilter([1.0], [1.0, -memory], rng.normal(0.0, sd, n))
    spread = float(np.std(values - expected))
    labels = np.zeros(n, dtype="<U11")
    events: list[tuple[str, int, int]] = []
    if anomalies:
        stuck, shifted = n // 4, n * 3 // 4
        length = max(_STUCK, int(_SHIFTED * n))
        values[shifted : shifted + length] += rng.choice([-1.0, 1.0]) * _SHIFT * spread
        values[stuck : stuck + _STUCK] = values[stuck]
        events = [("stuck", stuck, stuck + _STUCK), ("level_shift", shifted, shifted + length)]
        for place in np.linspace(0.05 * n, 0.95 * n, max(3, n // _READINGS_PER_SPIKE)).astype(int).tolist():
            if not any(start - 5 <= place < stop + 5 for _, start, stop in events):
                values[place] += rng.choice([-1.0, 1.0]) * _SPIKE * np.hypot(sd, news[place])
                events.append(("spike", place, place + 1))
        for name, start, stop in events:
            labels[start:stop] = name
    return LabelledSeries(
        timestamps=times,
        values=values,
        expected=expected,
        noise_sd=np.full(n, spread),
        labels=labels,
        events=tuple(sorted(events, key=lambda event: event[1])),
    )


def _people(times: TimeArray, zone: str) -> FloatArray:
    """Tell how full an office is, 0 to 1, float64[n]."""
    clock = pd.DatetimeIndex(times, tz="UTC").tz_convert(zone)
    hour = clock.hour.to_numpy() + clock.minute.to_numpy() / 60
    there: FloatArray = np.interp(hour, *_OPENING) * _WEEKDAYS[clock.day_of_week.to_numpy()]
    return there


def _days(times: TimeArray) -> FloatArray:
    days: FloatArray = (times - times[0]).astype(np.float64) / 86_400
    return days


Drawn = tuple[FloatArray, FloatArray, float, FloatArray]
"""What is expected; what regularly comes; the sd of the noise; that of what else is new in a reading."""


def _carbon_dioxide(_: np.random.Generator, times: TimeArray, people: FloatArray) -> Drawn:
    expected = 400 + 450 * people + 25 * np.cos(2 * np.pi * _days(times) / 365.25)
    return expected, expected, 12.0, np.zeros(len(times))


def _busy_days(rng: np.random.Generator, times: TimeArray, people: FloatArray) -> Drawn:
    """Let a tenth more or fewer people come, another number each day."""
    day = _days(times).astype(int)
    share = rng.lognormal(0.0, 0.1, day[-1] + 1)[day]
    return 400 + 450 * people, 400 + 450 * people * share, 12.0, np.zeros(len(times))


def _power(rng: np.random.Generator, times: TimeArray, people: FloatArray) -> Drawn:
    """Let consumption scatter in proportion to itself."""
    expected = 20 + 45 * people
    scatter = signal.lfilter([1.0], [1.0, -0.8], rng.normal(0.0, 0.05, len(times)))
    return expected, expected * np.exp(scatter), 0.2, 0.05 * expected


def _room(_: np.random.Generator, times: TimeArray, people: FloatArray) -> Drawn:
    expected = 21 + 1.5 * people + 0.8 * np.cos(2 * np.pi * _days(times) / 365.25)
    return expected, expected, 0.05, np.zeros(len(times))


def _outdoors(rng: np.random.Generator, times: TimeArray, _: FloatArray) -> Drawn:
    """Let the weather wander for days."""
    days = _days(times)
    step = float(np.median(np.diff(days)))
    keep = np.exp(-step / 3.0)
    news = np.full(len(times), 3.0 * np.sqrt(1.0 - keep**2))
    weather = signal.lfilter([1.0], [1.0, -keep], rng.normal(0.0, news))
    expected = 10 + 8 * np.cos(2 * np.pi * days / 365.25) + 4 * np.cos(2 * np.pi * days)
    return expected, expected + weather, 0.05, news


_KINDS: dict[str, Callable[[np.random.Generator, TimeArray, FloatArray], Drawn]] = {
    "carbon dioxide": _carbon_dioxide,
    "carbon dioxide, busy days": _busy_days,
    "power": _power,
    "room temperature": _room,
    "outdoor temperature": _outdoors,
}
KINDS: tuple[str, ...] = tuple(_KINDS)
