"""Sensors that follow themselves too closely for a fixed curve: rivers, loads, rooms with weather outside."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal

from iot_pipeline.detection import detect_anomalies

N = 12_000
DAY = 96
TIMES = np.datetime64("2014-01-01", "s") + (np.arange(N) * 900).astype("timedelta64[s]")


def river(seed: int = 1) -> npt.NDArray[np.float64]:
    """Draw a water temperature: weather that wanders, days that differ, and heavy-tailed noise by day."""
    rng = np.random.default_rng(seed)
    hour = np.arange(N) % DAY / DAY * 24
    loud = 0.02 + 0.05 * np.exp(-(((hour - 14) / 4) ** 2))
    weather = signal.lfilter([1.0], [1.0, -0.995], rng.standard_t(3, N) * loud)
    days = np.interp(np.arange(N), np.arange(0, N + DAY, DAY), rng.uniform(0.5, 1.5, N // DAY + 1))
    return np.asarray(8.0 + weather + days * np.cos((hour - 15) / 12 * np.pi))


def flags(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return detect_anomalies(TIMES, values).flags


@pytest.mark.parametrize("seed", range(3))
def test_an_untouched_river_gets_few_flags(seed: int) -> None:
    result = detect_anomalies(TIMES, river(seed))
    assert result.model.name == "autoregression"
    assert len(result.events) <= N / 4 / 1_000 * 2  # two alarms in a thousand hours
    assert not result.model.misfit


def test_the_words_say_that_it_follows_itself_and_what_it_is_judged_by() -> None:
    reasoning = detect_anomalies(TIMES, river()).model.reasoning
    assert "follows itself too closely for a fixed curve" in reasoning
    assert "how far a reading jumps from where the last eight lead" in reasoning


def test_a_spike_that_a_fixed_curve_would_swallow_is_found_and_so_is_nothing_beside_it() -> None:
    values = river()
    values[6_050] += 1.2
    assert np.ptp(values) > 5
    result = detect_anomalies(TIMES, values)
    assert result.flags[6_050]
    assert not result.flags[[6_049, 6_051]].any()
    assert result.kinds[6_050] == "spike"


def test_readings_between_two_opposite_edges_are_one_event_of_their_height() -> None:
    values = river()
    values[5_000:5_060] += 1.5
    result = detect_anomalies(TIMES, values)
    assert result.flags[5_000:5_060].all()
    event = result.events[result.event_ids[5_030]]
    assert event.kind == "burst"
    assert abs(event.n_points - 60) <= 1
    assert event.mean_residual == pytest.approx(1.5, abs=0.2)


def test_a_jump_that_does_not_return_within_a_day_is_a_level_shift() -> None:
    values = river()
    values[7_000:] += 3.0
    assert detect_anomalies(TIMES, values).kinds[7_000] == "level_shift"


def test_a_value_that_stands_still_for_a_quarter_of_a_day_is_stuck() -> None:
    values = river()
    values[4_000:4_024] = values[4_000]
    result = detect_anomalies(TIMES, values)
    assert (result.kinds[4_001:4_023] == "stuck").all()


def test_a_stuck_value_lends_its_name_to_no_reading_beside_it() -> None:
    values = river()
    values[4_000:4_048] = values[4_000]
    values[4_048:4_054] += 8.0
    kinds = detect_anomalies(TIMES, values).kinds
    assert (kinds[4_001:4_047] == "stuck").all()
    assert (kinds[4_049:4_053] != "stuck").all()
    assert (kinds[4_049:4_053] != "").all()


def test_a_river_that_is_frozen_for_weeks_is_not_stuck() -> None:
    values = np.round(river(), 2)
    frozen = np.abs(np.arange(N) - 3_000) < 1_500
    values[frozen] = np.where(np.random.default_rng(2).random(frozen.sum()) < 0.15, 0.01, 0.0)
    result = detect_anomalies(TIMES, values)
    assert np.mean(result.kinds[1_800:4_200] == "stuck") < 0.01


def test_a_drift_of_days_that_begins_and_ends_without_a_jump_is_found() -> None:
    values = river()
    values[6_000 : 6_000 + 4 * DAY] += 6.0 * (1 - np.abs(np.linspace(-1, 1, 4 * DAY)))
    result = detect_anomalies(TIMES, values)
    assert "drift" in result.kinds[6_000 : 6_000 + 4 * DAY]


def test_a_ramp_of_half_a_day_is_found() -> None:
    values = river()
    ramp = np.minimum(1.0, np.minimum(np.arange(48), np.arange(48)[::-1]) / 8)
    values[6_000:6_048] += 4.0 * ramp
    assert flags(values)[6_000:6_048].any()


def test_what_is_expected_follows_the_readings_but_not_an_anomaly() -> None:
    values = river()
    spoilt = values.copy()
    spoilt[6_000:6_020] += 5.0
    clean, result = detect_anomalies(TIMES, values), detect_anomalies(TIMES, spoilt)
    np.testing.assert_allclose(result.expected[6_000:6_020], clean.expected[6_000:6_020], atol=0.5)
    np.testing.assert_allclose(result.model.expected_at(TIMES), result.expected)
    outside = np.abs(values - clean.expected) > 3 * clean.model.noise_at(TIMES)
    assert outside.mean() < 0.05


def test_what_is_not_flagged_lies_within_a_step_of_what_is_expected() -> None:
    values = river()
    result = detect_anomalies(TIMES, values)
    away = np.abs(values - result.expected)[~result.flags]
    assert away.max() <= 1.5 * np.abs(np.diff(values)).max()


def test_the_band_is_wider_at_the_hours_when_the_sensor_is_louder() -> None:
    model = detect_anomalies(TIMES, river()).model
    noon, night = np.datetime64("2014-03-01T14:00"), np.datetime64("2014-03-01T02:00")
    loud, quiet = model.noise_at(np.array([noon, night]))
    assert loud > 2 * quiet


def test_noise_no_larger_than_the_resolution_is_no_anomaly() -> None:
    values = np.round(river() * 2) / 2
    assert flags(values).mean() < 0.03


def test_readings_after_weeks_without_any_are_judged_again() -> None:
    keep = np.ones(N, dtype=bool)
    keep[5_000:7_000] = False
    values = river()
    values[7_004] += 3.0
    result = detect_anomalies(TIMES[keep], values[keep])
    assert result.flags[5_004]
    assert [event.kind for event in result.events].count("gap") == 1


@pytest.mark.parametrize("turns", [2, 3])
def test_the_first_readings_of_a_sensor_that_turns_in_a_circle_are_no_anomaly(turns: int) -> None:
    assert not flags((np.arange(N) % turns).astype(np.float64)).any()


def test_spikes_that_come_again_and_again_are_natural_and_the_largest_still_stand_out() -> None:
    values = river()
    values[600:12_000:100] += np.random.default_rng(3).uniform(2.0, 3.0, 114)
    values[6_050] += 12.0
    result = detect_anomalies(TIMES, values)
    assert result.model.misfit
    assert "times less" in result.model.reasoning
    assert len(result.events) <= N / 300 + 1
    assert result.flags[6_050]
    assert result.scores[6_050] == np.nanmax(result.scores)


def test_a_handful_of_spikes_does_not_hide_itself_in_a_short_series() -> None:
    few = 1_600
    values = river()[:few]
    places = [300, 700, 1_000, 1_300, 1_500]
    values[places] += 1.5
    assert detect_anomalies(TIMES[:few], values).flags[places].all()
