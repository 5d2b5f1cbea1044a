"""The model is the true one, closely, and says why it was chosen."""

import re

import numpy as np
import pandas as pd
import pytest

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.samples.series import ANOMALIES, FAMILIES
from iot_pipeline_tests.detection.series import sensor

NAMES = {
    "constant": "constant",
    "linear": "linear",
    "quadratic": "quadratic",
    "cubic": "cubic",
    "far_cubic": "cubic",
    "annual": "annual wave",
    "daily": "constant + daily cycle",
    "step": "steps",
    "decay": "exponential decay",
    "piecewise_jumps": "piecewise linear with jumps",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_lies_within_a_thirtieth_of_the_noise_of_the_truth(family: str) -> None:
    series = sensor(family, "gaussian", *ANOMALIES, points=105_000)
    result = detect_anomalies(series.timestamps, series.values)
    assert np.sqrt(np.mean(((result.expected - series.expected) / series.noise_sd) ** 2)) < 0.033


@pytest.mark.parametrize(("family", "name"), NAMES.items())
def test_the_model_is_called_what_the_sensor_is(family: str, name: str) -> None:
    series = sensor(family, points=105_000)
    assert detect_anomalies(series.timestamps, series.values).model.name == name


def test_breakpoints_are_found_within_a_percent_of_the_span() -> None:
    series = sensor("step")
    jumps = series.timestamps[1:][np.diff(series.expected) != 0]
    found = np.array(detect_anomalies(series.timestamps, series.values).model.breakpoints)
    assert len(found) == len(jumps)
    assert np.max(np.abs(found - jumps)) < np.timedelta64(30, "m")


def test_the_noise_is_measured_in_the_unit_of_the_values() -> None:
    series = sensor("linear", "gaussian", *ANOMALIES)
    model = detect_anomalies(series.timestamps, series.values).model
    assert model.noise_sd == pytest.approx(series.noise_sd[0], rel=0.03)


def test_the_noise_follows_its_local_size() -> None:
    series = sensor("linear", "heteroscedastic")
    model = detect_anomalies(series.timestamps, series.values).model
    ratio = model.noise_at(series.timestamps) / series.noise_sd
    assert np.quantile(np.abs(ratio - 1), 0.95) < 0.12


def test_heavy_tails_are_recognised() -> None:
    heavy, light = sensor("linear", "student_t"), sensor("linear", "gaussian")
    assert detect_anomalies(heavy.timestamps, heavy.values).model.tail_freedom < 10
    assert np.isinf(detect_anomalies(light.timestamps, light.values).model.tail_freedom)


def test_the_model_can_be_drawn_at_any_time() -> None:
    series = sensor("piecewise_season")
    result = detect_anomalies(series.timestamps, series.values)
    drawn = result.model.expected_at(series.timestamps[::50])
    np.testing.assert_allclose(drawn, result.expected[::50], atol=1e-6)


def test_a_regular_sampling_doesnt_hide_the_day() -> None:
    times = np.datetime64("2013-01-01", "s") + (np.arange(5_000) * 900).astype("timedelta64[s]")
    wave = 5 * np.sin(2 * np.pi * np.arange(5_000) / 96)
    result = detect_anomalies(times, wave + np.random.default_rng(5).normal(size=5_000))
    assert result.model.name == "constant + daily cycle"
    assert dict(result.model.parameters)["amplitude_24h"] == pytest.approx(5, rel=0.03)


def reasoning(*sensor_arguments: str) -> str:
    series = sensor(*sensor_arguments)
    return detect_anomalies(series.timestamps, series.values).model.reasoning


@pytest.mark.parametrize(
    ("family", "words"),
    {
        "constant": "Holds one level; nothing unusual.",
        "linear": "Falls steadily; nothing unusual.",
        "quadratic": "Climbs, then falls, along a smooth curve; nothing unusual.",
        "cubic": "Climbs, then falls and climbs again, along a smooth curve; nothing unusual.",
        "decay": "Climbs fast at first, then ever more slowly; nothing unusual.",
        "daily": "Holds one level, with a daily rhythm; nothing unusual.",
        "step": "Jumps from one level to another once; nothing unusual.",
        "piecewise": "Runs straight and changes course once; nothing unusual.",
    }.items(),
)
def test_the_reasoning_begins_with_what_the_sensor_does(family: str, words: str) -> None:
    assert reasoning(family).startswith(words)


def test_the_reasoning_says_what_does_not_fit_when_and_by_how_much() -> None:
    series = sensor("quadratic", "gaussian", "level_shift")
    result = detect_anomalies(series.timestamps, series.values)
    event = max(result.events, key=lambda event: event.peak_score)
    start = pd.Timestamp(event.start, tz="UTC").tz_convert("Europe/Berlin")
    words = result.model.reasoning
    assert re.search(rf"\d readings don't fit: .* from {start:%Y-%m-%d %H:%M}, \S+ (above|below)", words)


def test_the_reasoning_counts_in_the_singular_and_the_plural() -> None:
    words = reasoning("quadratic", "gaussian", "spike", "drift")
    assert re.search(r"\d+ readings don't fit: \d+ spikes and one drift;", words)


def test_the_reasoning_tells_how_long_nothing_was_measured() -> None:
    words = reasoning("linear", "gaussian", "gap")
    assert re.search(r"Nothing was measured .*for (\d+ d( \d+ h)?|\d+ h( \d+ min)?) from", words)


def test_figures_come_after_the_words_with_the_runner_up_and_what_chance_gives() -> None:
    words, figures = reasoning("quadratic", "gaussian", "spike").split(" In figures: ")
    assert "BIC" not in words
    assert "sd" not in words
    assert figures.startswith("quadratic beats ")
    assert "points of BIC" in figures
    assert "54 would by chance" in figures
