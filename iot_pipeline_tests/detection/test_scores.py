"""A score is one unit for all sensors: the standard deviations at which a Gaussian reading is as rare."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, special

from iot_pipeline.detection import detect_anomalies
from iot_pipeline.detection.tails import deviations

N = 20_000
TIMES = np.datetime64("2014-01-01", "s") + (np.arange(N) * 900).astype("timedelta64[s]")


@given(st.floats(0.01, 36.0))
def test_evidence_of_a_gaussian_reading_is_worth_its_own_deviation(z: float) -> None:
    evidence = -float(special.log_ndtr(-z)) - np.log(2.0)
    assert float(deviations(np.array(evidence))) == pytest.approx(z, rel=2e-3, abs=2e-3)


def test_a_reading_of_five_standard_deviations_scores_five_where_a_curve_is_judged() -> None:
    values = np.random.default_rng(1).normal(size=N)
    values[9_000] = 5.0
    assert detect_anomalies(TIMES, values).scores[9_000] == pytest.approx(5.0, abs=0.2)


def test_flags_begin_at_the_same_score_however_a_sensor_is_judged() -> None:
    rng = np.random.default_rng(1)
    white, steps = rng.normal(size=N), rng.standard_t(3, N)
    white[9_000:18_000:1_000] += np.linspace(4.0, 9.0, 9)
    curve = detect_anomalies(TIMES, white)
    walk = detect_anomalies(TIMES, signal.lfilter([1.0], [1.0, -0.99], steps))
    assert curve.model.name == "constant"
    assert walk.model.name == "autoregression"
    for result in (curve, walk):
        assert 4.0 < result.scores[result.flags].min() < 5.2
        assert 4.0 < result.scores[~result.flags].max() < 5.2


def test_an_event_scores_as_its_strongest_reading() -> None:
    values = np.random.default_rng(2).normal(size=N)
    values[9_000:9_030] += 6.0
    result = detect_anomalies(TIMES, values)
    assert result.events[0].peak_score == result.scores[9_000:9_030].max()
