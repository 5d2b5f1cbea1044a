"""What maintenance changes in the verdict on a sensor."""

import numpy as np
import pytest

from iot_pipeline.detection import Detection, detect_anomalies

STEP = 900_000_000
"""A quarter of an hour in microseconds."""
N = 2_000
INSTANTS = np.arange(N, dtype=np.int64) * STEP
VALUES = np.random.default_rng(3).normal(0, 10, N)


def judge(instants: np.ndarray, values: np.ndarray, *maintenance: tuple[int, int]) -> Detection:
    return detect_anomalies(instants.view("datetime64[us]"), values, maintenance)


def kinds(found: Detection) -> list[str]:
    return [event.kind for event in found.events]


def without(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the readings without those between two positions."""
    kept = np.r_[:first, last:N]
    return INSTANTS[kept], VALUES[kept]


def test_without_maintenance_it_is_the_ordinary_verdict() -> None:
    values = VALUES.copy()
    values[500] += 200
    instants = np.delete(INSTANTS, np.s_[900:1000])
    values = np.delete(values, np.s_[900:1000])
    found = judge(instants, values)
    expected = detect_anomalies(instants.view("datetime64[us]"), values)
    assert found.events == expected.events
    for name in ("flags", "scores", "expected", "kinds", "event_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_what_is_measured_within_maintenance_is_not_flagged_and_bends_no_model() -> None:
    values = VALUES.copy()
    values[1000:1100] += 5_000
    found = judge(INSTANTS, values, (1000 * STEP, 1099 * STEP))
    assert kinds(found) == []
    assert not found.flags.any()
    assert np.isnan(found.scores[1000:1100]).all()
    assert np.isfinite(np.delete(found.scores, np.s_[1000:1100])).all()
    assert abs(found.expected).max() < 10
    assert found.model.n_points == N - 100


def test_an_event_outside_is_found_all_the_same_and_aligned_with_all_readings() -> None:
    values = VALUES.copy()
    values[1500] += 300
    found = judge(INSTANTS, values, (1000 * STEP, 1099 * STEP))
    assert np.flatnonzero(found.flags).tolist() == [1500]
    assert (found.kinds[1500], found.event_ids[1500], kinds(found)) == ("spike", 0, ["spike"])


@pytest.mark.parametrize(
    ("silent", "maintenance", "gaps"),
    [
        ((1000, 1100), (990, 1110), 0),
        ((1000, 1100), (1000, 1099), 0),
        ((1000, 1100), (1080, 1120), 1),
        ((1000, 1100), (1040, 1060), 1),
        ((1000, 1100), (1200, 1300), 1),
        ((1000, 1001), (950, 1050), 0),
    ],
    ids=[
        "silent within maintenance",
        "silent as long as maintenance",
        "silent long before maintenance began",
        "silent long before and after it",
        "silent at another time",
        "left out only",
    ],
)
def test_a_gap_is_one_if_what_lies_outside_maintenance_is_long_enough(
    silent: tuple[int, int], maintenance: tuple[int, int], gaps: int
) -> None:
    found = judge(*without(*silent), (maintenance[0] * STEP, maintenance[1] * STEP))
    assert kinds(found) == ["gap"] * gaps
    assert found.flags.sum() == gaps


def test_a_gap_that_maintenance_explains_is_no_event_and_not_told_of() -> None:
    values = VALUES.copy()
    values[1500] += 300
    found = judge(INSTANTS, values, (1000 * STEP, 1099 * STEP))
    assert found.event_ids.max() == len(found.events) - 1 == 0
    assert found.model.reasoning.endswith(" Left out for maintenance: 100 readings.")
    assert "Nothing was measured" not in found.model.reasoning


def test_readings_in_any_order_and_values_that_are_missing_are_judged_the_same() -> None:
    values = VALUES.copy()
    values[[300, 1050]] = np.nan
    straight = judge(INSTANTS, values, (1000 * STEP, 1099 * STEP))
    shuffle = np.random.default_rng(1).permutation(N)
    shuffled = judge(INSTANTS[shuffle], values[shuffle], (1000 * STEP, 1099 * STEP))
    np.testing.assert_array_equal(shuffled.flags, straight.flags[shuffle])
    np.testing.assert_allclose(shuffled.expected, straight.expected[shuffle])


def test_a_sensor_that_is_always_in_maintenance_has_no_events() -> None:
    found = judge(INSTANTS, VALUES, (0, N * STEP))
    assert kinds(found) == []
    assert found.model.n_points == 0
    assert np.isnan(found.expected).all()
