"""A sensor without anomalies gets no flags, whatever its shape and its noise."""

import numpy as np
import pytest
from scipy import signal

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.samples.series import FAMILIES, NOISES
from iot_pipeline_tests.detection.series import POINTS, sensor

TIMES = np.datetime64("2013-01-01", "s") + (np.arange(POINTS) * 900).astype("timedelta64[s]")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clean_gaussian_sensor_gets_no_flags(family: str) -> None:
    series = sensor(family)
    assert not detect_anomalies(series.timestamps, series.values).flags.any()


@pytest.mark.parametrize("noise", NOISES)
def test_no_kind_of_noise_is_taken_for_anomalies(noise: str) -> None:
    series = sensor("piecewise", noise)
    assert not detect_anomalies(series.timestamps, series.values).flags.any()


def test_a_full_size_sensor_has_hundreds_of_readings_beyond_three_sd_and_none_is_flagged() -> None:
    series = sensor("annual", points=105_000)
    result = detect_anomalies(series.timestamps, series.values)
    assert np.count_nonzero(result.scores > 3) > 200
    assert not result.flags.any()


@pytest.mark.parametrize("points", [24, 50, 100, 400, 3_000])
def test_a_short_clean_series_gets_no_flags(points: int) -> None:
    series = sensor("linear", points=points)
    assert not detect_anomalies(series.timestamps, series.values).flags.any()


def test_noise_that_remembers_its_past_is_not_flagged() -> None:
    shocks = np.random.default_rng(3).normal(size=POINTS)
    result = detect_anomalies(TIMES, signal.lfilter([1.0], [1.0, -0.9], shocks))
    assert not result.flags.any()
    assert result.model.autocorrelation == pytest.approx(0.9, abs=0.03)


def test_the_profile_of_a_building_is_not_flagged() -> None:
    quarter, day = np.arange(POINTS) % 96, np.arange(POINTS) // 96 % 7
    warm = 20 + 3 * np.exp(-0.5 * ((quarter - 56) / 8) ** 2) * (day < 5)
    result = detect_anomalies(TIMES, warm + np.random.default_rng(3).normal(0, 0.2, POINTS))
    assert not result.flags.any()
    assert result.model.name == "constant + daily cycle + weekly cycle"
    assert np.sqrt(np.mean((result.expected - warm) ** 2)) < 0.03


def test_a_random_walk_is_no_flood() -> None:
    for seed in range(3):
        walk = np.cumsum(np.random.default_rng(seed).normal(size=POINTS))
        assert detect_anomalies(TIMES, walk).flags.mean() < 0.02


def test_a_sensor_that_no_curve_describes_is_neither_flooded_nor_silent() -> None:
    days = np.repeat(np.random.default_rng(3).lognormal(0.0, 0.5, POINTS // 96 + 1), 96)[:POINTS]
    sun = 100 * days * np.maximum(0.0, np.sin((np.arange(POINTS) % 96 - 24) / 48 * np.pi))
    assert detect_anomalies(TIMES, sun).flags.mean() < 0.02
    sun[5_040] += 150.0
    assert detect_anomalies(TIMES, sun).flags[5_040]


def test_where_a_curve_leaves_too_much_to_flag_jumps_are_judged_and_the_clearest_readings_stay_flagged() -> (
    None
):
    rng = np.random.default_rng(4)
    values = rng.normal(size=POINTS)
    often = rng.random(POINTS) < 0.06
    values[often] += rng.choice([-8.0, 8.0], np.count_nonzero(often))
    values[7_000] += 300.0
    result = detect_anomalies(TIMES, values)
    assert result.model.name == "autoregression"
    assert result.flags[7_000]
    assert 0 < result.flags.mean() <= 0.1
    assert "too many readings lie off the best one" in result.model.reasoning
