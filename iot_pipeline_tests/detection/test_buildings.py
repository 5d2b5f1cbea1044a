"""Sensors as buildings have them: people's days and weeks by the clock, in noise that remembers its past."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import signal

from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.detection.summer_time import clock_changes

SHOCK = 12.0  # the standard deviation of what is new in each reading
SAMPLINGS = [(15, 1_095), (15, 120), (5, 365), (5, 60), (1, 60)]  # minutes between readings, and days
MEMORIES = [0.5, 0.7, 0.9]


@dataclass(frozen=True)
class Building:
    """The carbon dioxide in an office, in parts per million."""

    timestamps: npt.NDArray[np.datetime64]
    expected: npt.NDArray[np.float64]
    readings: npt.NDArray[np.float64]


def office(
    minutes: int, days: int, memory: float, *, zone: str = "Europe/Berlin", start: str = "2013-01-20"
) -> Building:
    """Draw an office that people fill from half past six on, on workdays, with two weeks missing."""
    rng = np.random.default_rng(5)
    count = days * 1_440 // minutes
    times = np.datetime64(start, "s") + (np.arange(count) * minutes * 60).astype("timedelta64[s]")
    fortnight = 14 * 1_440 // minutes
    times = np.delete(times, slice(count * 2 // 5, count * 2 // 5 + fortnight))
    clock = pd.DatetimeIndex(times, tz="UTC").tz_convert(zone)
    hour = clock.hour.to_numpy() + clock.minute.to_numpy() / 60
    people = np.interp(
        hour, [0, 6.5, 8.5, 12, 12.75, 13.5, 16, 19, 24], [0, 0, 0.85, 1, 0.7, 1, 0.9, 0.05, 0]
    )
    people *= np.array([1, 1, 1, 1, 1, 0.12, 0.03])[clock.day_of_week.to_numpy()]
    year = (times - times[0]).astype(np.float64) / (365.25 * 86_400)
    expected = 400 + 450 * people + 25 * np.cos(2 * np.pi * year)
    noise = signal.lfilter([1.0], [1.0, -memory], rng.normal(0.0, SHOCK, len(times)))
    return Building(times, expected, expected + noise)


def detect(building: Building) -> Detection:
    return detect_anomalies(building.timestamps, building.readings)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("minutes", "days"), SAMPLINGS)
def test_a_clean_office_is_no_flood(minutes: int, days: int, memory: float) -> None:
    result = detect(office(minutes, days, memory))
    assert not result.model.misfit
    assert result.flags.mean() <= 0.002


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("minutes", "days"), SAMPLINGS)
def test_spikes_and_stuck_values_in_an_office_are_found(minutes: int, days: int, memory: float) -> None:
    building = office(minutes, days, memory)
    values = building.readings
    n = len(values)
    spikes = np.linspace(0.05 * n, 0.95 * n, 10).astype(int)
    stuck = slice(n // 4, n // 4 + 40)
    values[spikes] += 8 * SHOCK * np.resize([1, -1], 10)
    values[stuck] = values[stuck.start]
    flags = detect(building).flags
    assert flags[spikes].sum() >= 9
    assert flags[stuck].mean() > 0.9


def test_days_follow_the_clock_where_people_do() -> None:
    building = office(15, 1_095, 0.5)
    result = detect(building)
    assert np.sqrt(np.mean((result.expected - building.expected) ** 2)) < 0.3 * SHOCK
    np.testing.assert_allclose(result.model.expected_at(building.timestamps), result.expected)


def test_days_follow_universal_time_where_nobody_changes_the_clock() -> None:
    building = office(15, 1_095, 0.5, zone="UTC")
    result = detect(building)
    assert np.sqrt(np.mean((result.expected - building.expected) ** 2)) < 0.3 * SHOCK
    assert not any(len(cycle.clock_changes) for cycle in result.model.cycles)


def test_weekends_are_recognised_in_six_weeks() -> None:
    result = detect(office(5, 56, 0.7, start="2013-06-01"))
    assert result.model.name.endswith("daily cycle + weekly cycle")


@pytest.mark.parametrize("year", [1999, 2013, 2024])
def test_clocks_change_when_they_do_in_berlin(year: int) -> None:
    changes = clock_changes(np.datetime64(f"{year}-01-01", "us"), 360 * 86_400.0)
    clock = pd.date_range(f"{year}-01-01", periods=360 * 24, freq="h", tz="UTC").tz_convert("Europe/Berlin")
    offsets = (clock.tz_localize(None) - clock.tz_convert(None)).total_seconds()
    hours = np.flatnonzero(np.diff(offsets)) + 1
    np.testing.assert_array_equal(changes, hours * 3_600.0)
