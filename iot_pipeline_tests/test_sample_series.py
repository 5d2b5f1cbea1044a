"""The generator of labelled sensors gives what it says."""

import numpy as np
import pytest

from iot_pipeline.samples.series import (
    ANOMALIES,
    FAMILIES,
    NOISES,
    LabelledSeries,
    irregular_timestamps,
    make_series,
)


def draw(
    family: str = "linear", noise: str = "gaussian", *anomalies: str, days: float = 200
) -> LabelledSeries:
    """Draw a sensor from a fixed seed."""
    rng = np.random.default_rng(11)
    times = irregular_timestamps(rng, start="2013-01-01", days=days)
    return make_series(rng, times, family=family, noise=noise, anomalies=anomalies)


def test_readings_come_every_5_to_30_minutes_and_15_in_the_mean() -> None:
    times = irregular_timestamps(np.random.default_rng(11), start="2013-01-01", days=1_000)
    steps = np.diff(times).astype("timedelta64[m]").astype(int)
    assert 5 <= steps.min() < steps.max() <= 30
    assert steps.mean() == pytest.approx(15, rel=0.01)
    assert times[0] == np.datetime64("2013-01-01")
    assert times[-1] < np.datetime64("2013-01-01") + np.timedelta64(1_000, "D")


def test_the_same_seed_gives_the_same_sensor() -> None:
    first, second = draw("piecewise", "student_t", *ANOMALIES), draw("piecewise", "student_t", *ANOMALIES)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.events == second.events


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("noise", NOISES)
def test_regular_readings_scatter_around_the_truth_by_the_noise(family: str, noise: str) -> None:
    series = draw(family, noise)
    standard = (series.values - series.expected) / series.noise_sd
    assert standard.mean() == pytest.approx(0, abs=0.05)
    assert standard.std() == pytest.approx(1, abs=0.05)
    assert np.median(series.noise_sd) == pytest.approx(10, rel=0.6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_shows_its_shape_within_five_weeks_too(family: str) -> None:
    height = np.ptp(draw(family, days=35).expected)
    assert height == 0 if family == "constant" else height > 25


@pytest.mark.parametrize("kind", ANOMALIES)
def test_labels_and_events_agree(kind: str) -> None:
    series = draw("constant", "gaussian", kind)
    marked = np.zeros(len(series.labels), dtype=bool)
    for name, start, stop in series.events:
        assert name == kind
        marked[start:stop] = True
    np.testing.assert_array_equal(marked, series.labels == kind)
    assert marked.any()


def test_a_gap_takes_readings_away_and_is_labelled_on_the_next_one() -> None:
    series = draw("constant", "gaussian", "gap")
    steps = np.diff(series.timestamps, prepend=series.timestamps[:1])
    np.testing.assert_array_equal(steps > np.timedelta64(3, "h"), series.labels == "gap")


def test_a_stuck_sensor_repeats_one_value() -> None:
    series = draw("linear", "gaussian", "stuck")
    for _, start, stop in series.events:
        assert np.ptp(series.values[start:stop]) == 0


def test_a_quantised_sensor_reads_whole_steps() -> None:
    values = draw("annual", "quantised", *ANOMALIES).values
    np.testing.assert_array_equal(values, np.rint(values))


@pytest.mark.parametrize("days", [35, 1_000])
def test_anomalies_stay_below_a_twentieth_of_the_readings(days: float) -> None:
    assert 0.01 < np.mean(draw("linear", "gaussian", *ANOMALIES, days=days).labels != "") < 0.05


@pytest.mark.parametrize("days", [0.0, 0.01, 0.5])
def test_a_handful_of_readings_is_a_sensor_too(days: float) -> None:
    for family in FAMILIES:
        series = draw(family, "gaussian", *ANOMALIES, days=days)
        assert np.isfinite(series.values).all()


@pytest.mark.parametrize("wrong", [{"family": "round"}, {"noise": "loud"}, {"anomalies": ["odd"]}])
def test_an_unknown_name_is_refused(wrong: dict[str, str]) -> None:
    rng = np.random.default_rng(11)
    times = irregular_timestamps(rng, start="2013-01-01", days=1)
    with pytest.raises(ValueError, match="is not one of"):
        make_series(rng, times, **{"family": "linear", **wrong})  # type: ignore[arg-type]
