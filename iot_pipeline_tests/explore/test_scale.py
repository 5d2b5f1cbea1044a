"""Which readings an axis that is scaled to the bulk shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.explore._data import Judged
from iot_pipeline.explore._scale import HUGE, bulk_edges

LARGEST = float(np.finfo(np.float64).max)
NO_BREAKPOINTS = np.empty(0, np.int64)


def judged(values: np.ndarray, *, level: float = 0.0) -> Judged:
    """Return readings whose model is a level, with noise of one unit."""
    n = len(values)
    return Judged(np.arange(n), values, np.full(n, level), np.ones(n), NO_BREAKPOINTS)


def edges(values: np.ndarray) -> tuple[float, float]:
    found = bulk_edges(judged(values), slice(None))
    assert found
    return found


@pytest.mark.parametrize("n_huge", [1, 200])
@pytest.mark.parametrize("huge", [1e4, 1e38, -1e300, LARGEST, -LARGEST])
def test_huge_readings_are_never_in_the_bulk_however_many(huge: float, n_huge: int) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    values[:n_huge] = huge
    low, high = edges(values)
    assert low < -3
    assert high > 3
    assert high - low < 10


def test_a_level_shift_is_in_the_bulk() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    values[500:600] += 60
    _, high = edges(values)
    assert high > np.quantile(values, 0.99)


def test_the_models_band_is_in_the_bulk_when_nothing_is_far_from_it() -> None:
    low, high = edges(np.zeros(50))
    assert low < -3
    assert high > 3


def test_without_readings_there_is_no_bulk() -> None:
    assert bulk_edges(judged(np.empty(0)), slice(None)) is None


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50),
    st.floats(-LARGEST, LARGEST),
)
def test_the_edges_are_finite_and_in_order(values: list[float], level: float) -> None:
    found = bulk_edges(judged(np.array(values), level=level), slice(None))
    assert found is None or -HUGE <= found[0] < found[1] <= HUGE
