"""Anomalies that were put in on purpose are found, named and delimited."""

import numpy as np
import pytest

from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.samples.series import ANOMALIES, FAMILIES, NOISES, LabelledSeries
from iot_pipeline_tests.detection.series import sensor


def f1(series: LabelledSeries, result: Detection) -> float:
    """Compare flags with labels."""
    truth = series.labels != ""
    return float(2 * np.count_nonzero(result.flags & truth) / (result.flags.sum() + truth.sum()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_anomaly_at_once_is_found_on_every_family(family: str) -> None:
    series = sensor(family, "gaussian", *ANOMALIES)
    assert f1(series, detect_anomalies(series.timestamps, series.values)) > 0.96


@pytest.mark.parametrize("noise", NOISES)
def test_every_kind_of_anomaly_at_once_is_found_in_every_noise(noise: str) -> None:
    series = sensor("piecewise_season", noise, *ANOMALIES)
    assert f1(series, detect_anomalies(series.timestamps, series.values)) > 0.96


@pytest.mark.parametrize("kind", ANOMALIES)
def test_an_anomaly_is_found_and_called_by_its_name(kind: str) -> None:
    series = sensor("quadratic", "gaussian", kind, spike_sd=(8.0, 15.0))
    result = detect_anomalies(series.timestamps, series.values)
    for _, start, stop in series.events:
        assert np.mean(result.kinds[start:stop] == kind) > 0.5


@pytest.mark.parametrize("kind", ["burst", "level_shift", "stuck", "drift", "variance"])
def test_an_event_begins_and_ends_where_it_does(kind: str) -> None:
    series = sensor("quadratic", "gaussian", kind)
    result = detect_anomalies(series.timestamps, series.values)
    assert f1(series, result) > 0.93


def test_an_event_carries_its_times_its_size_and_its_height() -> None:
    series = sensor("constant", "gaussian", "level_shift")
    result = detect_anomalies(series.timestamps, series.values)
    kind, start, stop = series.events[0]
    shift = np.mean((series.values - series.expected)[start:stop])
    event = result.events[0]
    assert event.kind == kind
    assert abs((event.start - series.timestamps[start]).astype("timedelta64[h]").astype(int)) < 2
    assert abs((event.end - series.timestamps[stop - 1]).astype("timedelta64[h]").astype(int)) < 2
    assert event.n_points == np.count_nonzero(result.event_ids == 0)
    assert event.mean_residual == pytest.approx(shift, abs=3)
    assert event.peak_score > 10


def test_a_gap_is_flagged_on_the_first_reading_after_and_starts_before() -> None:
    series = sensor("linear", "gaussian", "gap")
    result = detect_anomalies(series.timestamps, series.values)
    after = [start for _, start, _ in series.events]
    assert np.flatnonzero(result.flags).tolist() == after
    assert [event.start for event in result.events] == [series.timestamps[i - 1] for i in after]


@pytest.mark.parametrize("family", ["linear", "daily"])
def test_a_gap_is_told_although_the_first_reading_after_it_is_far_off(family: str) -> None:
    series = sensor(family, "gaussian", "gap")
    after = [start for _, start, _ in series.events]
    values = series.values.copy()
    values[after] += 1e4
    result = detect_anomalies(series.timestamps, values)
    assert [
        event.kind for event in result.events if event.start in series.timestamps[np.array(after) - 1]
    ] == ["gap"] * len(after)
    assert result.flags[after].all()


def test_one_spike_among_equal_readings_is_flagged() -> None:
    values = np.full(1_000, 5.0)
    values[400] = 9.0
    times = np.datetime64("2013-01-01", "s") + (np.arange(1_000) * 900).astype("timedelta64[s]")
    assert np.flatnonzero(detect_anomalies(times, values).flags).tolist() == [400]


def test_spikes_are_found_in_noise_that_remembers_its_past() -> None:
    rng = np.random.default_rng(1)
    values = np.zeros(20_000)
    for i in range(1, len(values)):
        values[i] = 0.8 * values[i - 1] + rng.normal()
    spikes = np.arange(500, 20_000, 1_000)
    values[spikes] += 15.0
    times = np.datetime64("2013-01-01", "s") + (np.arange(20_000) * 900).astype("timedelta64[s]")
    assert set(spikes) <= set(np.flatnonzero(detect_anomalies(times, values).flags))


def test_the_scores_of_anomalies_stand_above_those_of_regular_readings() -> None:
    series = sensor("cubic", "heteroscedastic", *ANOMALIES)
    result = detect_anomalies(series.timestamps, series.values)
    assert result.scores[result.flags].min() > 4
    assert np.quantile(result.scores[series.labels == ""], 0.999) < 4


def test_a_week_of_five_has_its_anomalies_found_too() -> None:
    series = sensor("daily", "gaussian", *ANOMALIES, points=3_400)
    assert f1(series, detect_anomalies(series.timestamps, series.values)) > 0.9


def test_a_spike_among_a_hundred_readings_is_found() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(20.0, 1.0, 100)
    values[60] += 12.0
    times = np.datetime64("2013-01-01", "s") + (np.arange(100) * 900).astype("timedelta64[s]")
    assert np.flatnonzero(detect_anomalies(times, values).flags).tolist() == [60]


def shifted_room(
    n_shifted: int, seed: int, *, size: float = 2.5, memory: float = 0.85, drift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw sixty days of a room whose noise remembers its past, the last readings of it higher by `size`."""
    times = np.arange(np.datetime64("2013-08-22", "us"), np.datetime64("2013-10-21"), np.timedelta64(10, "m"))
    noise = np.random.default_rng(seed).normal(0, 0.08, len(times))
    for position in range(1, len(noise)):
        noise[position] += memory * noise[position - 1]
    values = 21 + 1.5 * np.sin(2 * np.pi * np.arange(len(times)) / 144) + noise
    values += np.linspace(0, drift, len(times))
    values[len(values) - n_shifted :] += size
    return times, values


@pytest.mark.parametrize("drift", [0.0, 1.5], ids=["level", "drifting"])
@pytest.mark.parametrize("n_shifted", [12, 20, 48, 84, 144, 200, 300, 400])
@pytest.mark.parametrize(("size", "memory"), [(0.24, 0.0), (1.6, 0.0), (2.5, 0.85), (6.0, 0.85)])
def test_a_shift_at_the_end_is_one_event_that_goes_on_until_it_is_a_new_level(
    size: float, memory: float, n_shifted: int, drift: float
) -> None:
    for seed in range(3):
        times, values = shifted_room(n_shifted, seed, size=size, memory=memory, drift=drift)
        detection = detect_anomalies(times, values)
        began = times[-n_shifted]
        assert "daily cycle" in detection.model.name
        if any(abs(place - began) <= np.timedelta64(20, "m") for place in detection.model.breakpoints):
            assert n_shifted >= 200
            continue
        event = detection.events[-1]
        assert event.kind in {"burst", "level_shift"}
        assert abs(event.start - began) <= np.timedelta64(20, "m")
        assert abs(event.end - times[-1]) <= np.timedelta64(20, "m")
        assert event.mean_residual == pytest.approx(size, abs=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_a_shift_that_stays_is_a_new_level_and_no_event_after_it(seed: int) -> None:
    times, values = shifted_room(500, seed)
    detection = detect_anomalies(times, values)
    assert "daily cycle" in detection.model.name
    assert len(detection.model.breakpoints) == 1
    assert len(detection.events) <= 1
    assert not detection.flags[-490:].any()


def test_the_day_is_found_however_long_the_series_is() -> None:
    times, values = shifted_room(0, 1)
    times = times[0] + np.arange(10_000) * np.timedelta64(10, "m")
    values = np.resize(values, len(times))  # sixty whole days, and a part of them again
    for n in range(8_640, 9_600, 16):
        values_then = values[:n].copy()
        values_then[-84:] += 2.5
        assert "daily cycle" in detect_anomalies(times[:n], values_then).model.name
