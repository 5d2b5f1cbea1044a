"""Whatever is handed in, the answer is a verdict aligned with it: no exception, no warning, no flood."""

import pickle

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iot_pipeline.detection import Detection, detect_anomalies
from iot_pipeline.samples.series import ANOMALIES
from iot_pipeline_tests.detection.series import sensor

START = np.datetime64("2013-01-01", "s")
EXTREMES = [0.0, -0.0, 1.0, 1.0, 5.5, np.nan, np.inf, -np.inf, 1e300, -1e300, 1.7e308, 5e-324, 1e-300]


def every_quarter(n: int) -> npt.NDArray[np.datetime64]:
    """Give n regular times."""
    return START + (np.arange(n) * 900).astype("timedelta64[s]")


def assert_sound(result: Detection, values: npt.NDArray[np.float64]) -> None:
    """Check what holds for every verdict."""
    n = len(values)
    assert {len(each) for each in (result.flags, result.scores, result.expected, result.kinds)} == {n}
    assert not result.flags[~np.isfinite(values)].any()
    assert np.isnan(result.scores[~np.isfinite(values)]).all()
    assert (result.scores[np.isfinite(values)] >= 0).all()
    np.testing.assert_array_equal(result.flags, result.event_ids >= 0)
    np.testing.assert_array_equal(result.flags, result.kinds != "")
    assert sorted(set(result.event_ids[result.flags].tolist())) == list(range(len(result.events)))
    assert result.flags.sum() <= max(0.1 * n, 10)


@given(values=st.lists(st.sampled_from(EXTREMES) | st.floats(-100, 100), max_size=80))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_any_values_get_a_verdict(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    assert_sound(detect_anomalies(every_quarter(len(array)), array), array)


@given(
    minutes=st.lists(st.integers(-1_000_000, 1_000_000), min_size=20, max_size=80),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_times_get_a_verdict(minutes: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=len(minutes))
    times = START + np.array(minutes, dtype="timedelta64[m]")
    assert_sound(detect_anomalies(times, values), values)


@given(seed=st.integers(0, 1_000))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_the_order_of_the_input_doesnt_matter(seed: int) -> None:
    series = sensor("piecewise", "gaussian", *ANOMALIES, points=3_000)
    shuffle = np.random.default_rng(seed).permutation(len(series.values))
    straight = detect_anomalies(series.timestamps, series.values)
    shuffled = detect_anomalies(series.timestamps[shuffle], series.values[shuffle])
    np.testing.assert_array_equal(shuffled.flags, straight.flags[shuffle])
    np.testing.assert_array_equal(shuffled.event_ids, straight.event_ids[shuffle])
    np.testing.assert_allclose(shuffled.scores, straight.scores[shuffle])
    np.testing.assert_allclose(shuffled.expected, straight.expected[shuffle])


@given(shift=st.floats(-1e6, 1e6), scale=st.sampled_from([1e-6, 0.5, 1e6]))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_the_unit_of_the_values_doesnt_matter(shift: float, scale: float) -> None:
    series = sensor("quadratic", "gaussian", *ANOMALIES, points=3_000)
    plain = detect_anomalies(series.timestamps, series.values)
    other = detect_anomalies(series.timestamps, (series.values + shift) * scale)
    np.testing.assert_array_equal(other.flags, plain.flags)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 23, 24])
def test_few_readings_get_a_level_and_no_flags(n: int) -> None:
    values = np.arange(n, dtype=np.float64)
    result = detect_anomalies(every_quarter(n), values)
    assert_sound(result, values)
    assert not result.flags.any()
    assert result.model.n_points == n


@pytest.mark.parametrize("value", [0.0, 5.0, -297_000.0, 1e300, 1e-300])
def test_a_constant_sensor_has_no_anomalies(value: float) -> None:
    values = np.full(2_000, value)
    result = detect_anomalies(every_quarter(2_000), values)
    assert not result.flags.any()
    np.testing.assert_allclose(result.expected, value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_missing_and_infinite_values_change_nothing_about_the_others(bad: float) -> None:
    series = sensor("linear", "gaussian", "spike", points=3_000)
    holes = np.zeros(len(series.values), dtype=bool)
    holes[::7] = True
    values = np.where(holes, bad, series.values)
    result = detect_anomalies(series.timestamps, values)
    without = detect_anomalies(series.timestamps[~holes], series.values[~holes])
    assert_sound(result, values)
    np.testing.assert_array_equal(result.flags[~holes], without.flags)
    assert np.isfinite(result.expected).all()


def test_a_few_values_of_1e300_are_spikes_and_hide_nothing() -> None:
    series = sensor("linear", "gaussian")
    values = series.values.copy()
    values[[100, 5_000]] = 1e300, -1e300
    result = detect_anomalies(series.timestamps, values)
    assert np.flatnonzero(result.flags).tolist() == [100, 5_000]
    assert result.model.noise_sd == pytest.approx(series.noise_sd[0], rel=0.05)


LARGEST = np.finfo(np.float64).max


@pytest.mark.parametrize("size", [1e290, 1e300, 1.2e300, 1e308, LARGEST, -LARGEST])
@pytest.mark.parametrize("places", [[0], [999], [500], [500, 501], [0, 999]])
@pytest.mark.parametrize("sensor_kind", ["constant", "noise", "walk"])
def test_an_error_sentinel_is_flagged_and_overflows_nothing(
    sensor_kind: str, places: list[int], size: float
) -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_t(3, 1_000)
    values = {"constant": np.full(1_000, 5.0), "noise": noise, "walk": np.cumsum(noise)}[sensor_kind]
    values[places] = size
    result = detect_anomalies(every_quarter(1_000), values)
    assert result.flags[places].all()
    assert result.flags.sum() <= 50
    assert np.isfinite(result.scores).all()
    assert np.isfinite(result.expected).all()
    assert np.isfinite(result.model.expected_at(every_quarter(1_000))).all()
    assert all(np.isfinite((event.mean_residual, event.peak_score)).all() for event in result.events)


@given(
    values=st.lists(
        st.sampled_from([1e290, -1e299, 1e300, -1.2e300, 1e305, LARGEST, -LARGEST, 0.0, 1.0]),
        min_size=24,
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nothing_but_huge_values_gets_finite_scores(values: list[float]) -> None:
    array = np.array(values)
    result = detect_anomalies(every_quarter(len(array)), array)
    assert_sound(result, array)
    assert np.isfinite(result.scores).all()
    assert np.isfinite(result.expected).all()
    assert all(np.isfinite((event.mean_residual, event.peak_score)).all() for event in result.events)


def test_spikes_on_one_reading_in_a_hundred_are_no_resolution() -> None:
    values = np.full(1_000, 5.0)
    values[50::100] = 9.0
    assert np.flatnonzero(detect_anomalies(every_quarter(1_000), values).flags).tolist() == list(
        range(50, 1_000, 100)
    )


def test_readings_without_a_time_are_left_out() -> None:
    series = sensor("linear", points=3_000)
    times = series.timestamps.copy()
    times[5] = np.datetime64("NaT")
    result = detect_anomalies(times, series.values)
    assert not result.flags.any()
    assert np.isnan(result.scores[5])
    assert np.isnan(result.expected[5])


def test_readings_at_one_and_the_same_time_get_a_level() -> None:
    values = np.random.default_rng(1).normal(size=1_000)
    result = detect_anomalies(np.repeat(START, 1_000), values)
    assert_sound(result, values)
    assert not result.flags.any()


def test_repeated_times_are_no_anomaly() -> None:
    values = np.random.default_rng(1).normal(size=5_000)
    assert not detect_anomalies(np.repeat(every_quarter(2_500), 2), values).flags.any()


def test_missing_weeks_are_gaps_and_nothing_else() -> None:
    times = np.delete(every_quarter(20_000), np.arange(8_000, 10_000))
    values = np.random.default_rng(1).normal(size=len(times))
    result = detect_anomalies(times, values)
    assert [event.kind for event in result.events] == ["gap"]


@pytest.mark.parametrize("unit", ["ns", "us", "ms", "s", "m"])
def test_times_of_any_unit_are_understood(unit: str) -> None:
    series = sensor("linear", "gaussian", "spike", points=3_000)
    times = series.timestamps.astype(f"datetime64[{unit}]")
    expected = detect_anomalies(series.timestamps, series.values).flags
    np.testing.assert_array_equal(detect_anomalies(times, series.values).flags, expected)


def test_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        detect_anomalies(every_quarter(3), np.zeros(4))


def test_a_verdict_travels_between_processes() -> None:
    series = sensor("piecewise_season", "student_t", *ANOMALIES, points=3_000)
    result = detect_anomalies(series.timestamps, series.values)
    copy = pickle.loads(pickle.dumps(result))  # noqa: S301  our own bytes
    assert copy.events == result.events
    np.testing.assert_allclose(copy.model.expected_at(series.timestamps), result.expected)


def test_the_global_random_state_stays_untouched() -> None:
    before = str(np.random.get_state())  # noqa: NPY002  the state that pwlf can overwrite
    series = sensor("piecewise", points=3_000)
    detect_anomalies(series.timestamps, series.values)
    assert str(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("start", ["-200000-01-01", "0001-01-01", "1969-12-31", "200000-01-01"])
def test_a_day_is_found_in_any_century(start: str) -> None:
    times = np.datetime64(start, "us") + (np.arange(12_000) * 1_800).astype("timedelta64[s]")
    waves = 5 * np.sin(np.arange(12_000) * np.pi / 24) + np.random.default_rng(1).normal(size=12_000)
    result = detect_anomalies(times, waves)
    assert result.model.name == "constant + daily cycle"
    assert not result.flags.any()
