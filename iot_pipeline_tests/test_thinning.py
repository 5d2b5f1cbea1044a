"""Fewer points, the same picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_pipeline.thinning import breaks, compress, one_per_pixel, pixel_columns, thin

readings = st.lists(
    st.tuples(st.integers(0, 10_000), st.floats(-1e308, 1e308)), min_size=1, max_size=200
).map(lambda pairs: (np.array(sorted(t for t, _ in pairs)), np.array([v for _, v in pairs])))


@given(readings, st.integers(1, 30))
def test_every_pixel_column_keeps_its_first_last_lowest_and_highest_reading(
    series: tuple[np.ndarray, np.ndarray], columns: int
) -> None:
    instants, values = series
    firsts = pixel_columns(instants, int(instants[0]), int(instants[-1]) + 1, columns)
    chosen = thin(values, firsts)
    assert len(firsts) <= columns
    for first, stop in zip(firsts, np.append(firsts[1:], len(values)), strict=True):
        of_column = chosen[(chosen >= first) & (chosen < stop)]
        assert 1 <= len(of_column) <= 4
        assert {first, stop - 1} <= set(of_column)
        assert values[of_column].min() == values[first:stop].min()
        assert values[of_column].max() == values[first:stop].max()


def test_a_pixel_column_spans_the_same_time_as_any_other() -> None:
    instants = np.array([0, 1, 2, 99, 100, 350])
    assert pixel_columns(instants, 0, 400, 4).tolist() == [0, 4, 5]


def test_no_readings_need_no_points() -> None:
    nothing = np.empty(0, np.int64)
    firsts = pixel_columns(nothing, 0, 1, 10)
    assert not len(thin(np.empty(0), firsts))
    assert not len(breaks(nothing, firsts, 1.0))


def test_a_line_is_broken_where_nobody_measured() -> None:
    instants = np.concatenate((np.arange(100), np.arange(1000, 1100)))
    chosen = np.arange(0, 200, 5)
    assert chosen[breaks(instants, chosen, column_width=1.0)].tolist() == [100]


def test_a_gap_that_is_narrower_than_two_pixels_is_not_drawn() -> None:
    instants = np.concatenate((np.arange(100), np.arange(1000, 1100)))
    assert not len(breaks(instants, np.arange(200), column_width=500.0))


@given(readings)
def test_a_marker_is_left_out_only_behind_another_one(series: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = series[0].astype(float), series[1]
    kept = one_per_pixel(x, y, 20, 10)

    def pixels(rows: np.ndarray) -> set[tuple[int, int]]:
        across = (x - x.min()) / max(np.ptp(x), 1)
        up = (y / 2 - y.min() / 2) / (y.max() / 2 - y.min() / 2 or 1.0)
        return {(min(int(across[i] * 20), 19), min(int(up[i] * 10), 9)) for i in rows}

    assert pixels(kept) == pixels(np.arange(len(x)))


@pytest.mark.parametrize(("residual", "place"), [(0, 0), (3, 3), (-6, -6), (60, 12), (-600, -18)])
def test_residuals_are_drawn_linear_up_to_6_and_logarithmic_beyond(residual: float, place: float) -> None:
    assert compress(np.array([residual], float))[0] == pytest.approx(place)


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=50).map(sorted))
def test_a_greater_residual_is_never_drawn_lower(residuals: list[float]) -> None:
    assert np.all(np.diff(compress(np.array(residuals))) >= 0)
