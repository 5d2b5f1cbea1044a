"""Sensors as buildings have them: people's days and weeks by the clock, in noise that remembers its past."""

import numpy as np
import pandas as pd
import pytest

from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.detection.summer_time import clock_changes
from iot_pipeline.samples.series import LabelledSeries
from iot_pipeline_tests.detection.buildings import KINDS, make_building, regular_timestamps

SAMPLINGS = [(15, 1_095), (15, 120), (5, 365), (5, 60), (1, 60), (1, 20)]  # minutes, days
A_WHILE = 40  # days, beyond which two weeks may be missing
MEMORIES = [0.5, 0.7, 0.9]


def office(
    minutes: int = 15,
    days: int = 1_095,
    memory: float = 0.5,
    *,
    kind: str = "carbon dioxide",
    zone: str = "Europe/Berlin",
    start: str = "2013-01-20",
    anomalies: bool = False,
) -> LabelledSeries:
    times = regular_timestamps(start, days=days, minutes=minutes, weeks_missing=2 * (days > A_WHILE))
    rng = np.random.default_rng(5)
    return make_building(rng, times, kind=kind, memory=memory, zone=zone, anomalies=anomalies)


def detect(series: LabelledSeries) -> Detection:
    return detect_anomalies(series.timestamps, series.values)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("minutes", "days"), SAMPLINGS)
def test_a_clean_office_is_no_flood(minutes: int, days: int, memory: float) -> None:
    result = detect(office(minutes, days, memory))
    assert not result.model.misfit
    assert result.flags.mean() <= 0.001


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("minutes", "days"), [(15, 1_095), (5, 180)])
def test_what_varies_from_day_to_day_is_no_flood(minutes: int, days: int, kind: str) -> None:
    result = detect(office(minutes, days, kind=kind))
    assert not result.model.misfit
    assert result.flags.mean() <= 0.01


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize(("minutes", "days"), SAMPLINGS)
def test_spikes_and_stuck_values_in_an_office_are_found(minutes: int, days: int, memory: float) -> None:
    series = office(minutes, days, memory, anomalies=True)
    flags = detect(series).flags
    assert flags[series.labels == "spike"].mean() >= 0.9
    assert flags[series.labels == "stuck"].mean() > 0.9


def test_days_follow_the_clock_where_people_do() -> None:
    series = office()
    result = detect(series)
    error = np.sqrt(np.mean((result.expected - series.expected) ** 2))
    assert error < 0.3 * series.noise_sd[0]
    np.testing.assert_allclose(result.model.expected_at(series.timestamps), result.expected)


def test_days_follow_universal_time_where_nobody_changes_the_clock() -> None:
    series = office(zone="UTC")
    result = detect(series)
    assert np.sqrt(np.mean((result.expected - series.expected) ** 2)) < 0.3 * series.noise_sd[0]
    assert not any(len(cycle.clock_changes) for cycle in result.model.cycles)


@pytest.mark.parametrize("days", [16, 20, 35])
def test_weekends_are_recognised_in_a_few_weeks(days: int) -> None:
    result = detect(office(5, days, 0.7, start="2013-06-03"))
    assert result.model.name.endswith("daily cycle + weekly cycle")


@pytest.mark.parametrize("days", [7, 10, 15])
def test_days_are_recognised_in_a_few_of_them(days: int) -> None:
    result = detect(office(5, days, 0.7, kind="outdoor temperature"))
    assert "with a daily rhythm" in result.model.reasoning


@pytest.mark.parametrize("seed", range(20))
def test_no_days_are_seen_in_a_random_walk(seed: int) -> None:
    times = regular_timestamps("2013-01-20", days=10, minutes=5, weeks_missing=0)
    walk = np.cumsum(np.random.default_rng(seed).normal(size=len(times)))
    assert "daily" not in detect_anomalies(times, walk).model.name


def test_the_noise_is_louder_when_people_are_there() -> None:
    series = office(kind="power")
    result = detect(series)
    day, night = np.datetime64("2013-06-05T10:00"), np.datetime64("2013-06-05T01:00")
    loud, quiet = result.model.noise_at(np.array([day, night]))
    assert loud > 2 * quiet


def test_noise_without_a_rhythm_gets_none() -> None:
    series = office(15, 1_095, 0.0)
    noise_cycle = detect(series).model.noise_cycle
    assert noise_cycle is None or np.ptp(noise_cycle.table) < 0.1


@pytest.mark.parametrize("year", [1999, 2013, 2024])
def test_clocks_change_when_they_do_in_berlin(year: int) -> None:
    changes = clock_changes(np.datetime64(f"{year}-01-01", "us"), 360 * 86_400.0)
    clock = pd.date_range(f"{year}-01-01", periods=360 * 24, freq="h", tz="UTC").tz_convert("Europe/Berlin")
    offsets = (clock.tz_localize(None) - clock.tz_convert(None)).total_seconds()
    hours = np.flatnonzero(np.diff(offsets)) + 1
    np.testing.assert_array_equal(changes, hours * 3_600.0)
