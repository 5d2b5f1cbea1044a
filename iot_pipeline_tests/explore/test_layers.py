"""What is drawn of a sensor."""

import json
from typing import Any

import numpy as np
import orjson
import pytest

from iot_pipeline.explore._data import Flags, Judged
from iot_pipeline.explore._frame import frame, residual_ticks, time_axes
from iot_pipeline.explore._layers import Trace, Window, layers
from iot_pipeline.explore._style import DARK, LIGHT
from iot_pipeline.kinds import KINDS as EXPLAINED
from iot_pipeline.thinning import compress
from iot_pipeline_tests.explore.test_fleet import HOUR, events_of

QUARTER = HOUR // 4
KINDS = tuple(EXPLAINED)


def trace_of(values: np.ndarray, flagged: list[int] | None = None, name: str = "a") -> Trace:
    instants = np.arange(len(values)) * QUARTER
    judged = Judged(
        instants, values, np.zeros(len(values)), np.ones(len(values)), np.array([50 * HOUR], np.int64)
    )
    rows = np.array(flagged or [], np.int64)
    flags = Flags(instants[rows], values[rows], np.zeros(len(rows)), np.zeros(len(rows), np.int64))
    return Trace(name, judged, flags if flagged else None, events_of((0, 10, 20, 9)))


def drawn(trace: Trace, *, start: int = 0, end: int | None = None, columns: int = 100) -> dict[str, Any]:
    window = Window(
        start, len(trace.judged.instants) * QUARTER if end is None else end, columns, KINDS, LIGHT
    )
    series = orjson.loads(orjson.dumps(layers([trace], window), option=orjson.OPT_SERIALIZE_NUMPY))["series"]
    return {each.get("name", "low") + str(each["xAxisIndex"]): each for each in series}


def test_every_single_extreme_and_every_flagged_reading_is_drawn_at_full_zoom_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_000)
    spikes = rng.choice(len(values), 300, replace=False)
    values[spikes] += 50
    series = drawn(trace_of(values, sorted(spikes.tolist())))
    assert len(series["readings0"]["data"]) <= 4 * 101
    marked = {tuple(point) for point in series["spike0"]["data"]}
    assert marked == {(spike * QUARTER / 1000, values[spike]) for spike in spikes}


def test_readings_and_residuals_stand_in_panels_of_their_own() -> None:
    series = drawn(trace_of(np.ones(50), [7]))
    assert set(series) == {"low0", "± 3 sd0", "readings0", "model0", "residual1", "spike0", "spike1"}


def test_the_band_is_three_standard_deviations_wide_on_both_sides() -> None:
    series = drawn(trace_of(np.ones(50)))
    assert {value for _, value in series["low0"]["data"]} == {-3.0}
    assert {height for _, height in series["± 3 sd0"]["data"]} == {6.0}


def test_only_the_window_and_one_reading_beyond_each_edge_is_drawn() -> None:
    series = drawn(trace_of(np.ones(100)), start=10 * QUARTER, end=20 * QUARTER)
    times = [time * 1000 // QUARTER for time, _ in series["readings0"]["data"]]
    assert (min(times), max(times)) == (9, 21)


def test_events_are_shaded_and_breakpoints_are_lines() -> None:
    readings = drawn(trace_of(np.ones(400)))["readings0"]
    ((left, right),) = readings["markArea"]["data"]
    assert (left["xAxis"], right["xAxis"]) == (10 * HOUR / 1000, 20 * HOUR / 1000)
    assert readings["markLine"]["data"] == [{"xAxis": 50 * HOUR / 1000}]


@pytest.mark.parametrize("absurd", [1e290, -1e300, np.finfo(np.float64).max, -np.finfo(np.float64).max])
def test_an_absurd_reading_is_drawn_on_an_axis_that_has_a_finite_span(absurd: float) -> None:
    values = np.ones(100)
    values[50] = absurd
    series = drawn(trace_of(values, [50]))
    (marker,) = series["spike0"]["data"]
    assert abs(marker[1]) == min(abs(absurd), 1e300)
    assert all(None not in point for point in series["readings0"]["data"])


def test_scaled_to_the_bulk_readings_beyond_the_edge_are_marked_there_and_told_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=100)
    values[[30, 60]] = 1e38, -1e38
    trace = trace_of(values, [30, 60])
    option = layers([trace], Window(0, 100 * QUARTER, 100, KINDS, LIGHT, bulk=True))
    low, high = option["yAxis"][0]["min"], option["yAxis"][0]["max"]
    assert -10 < low < high < 10
    drawn = {
        name: [s["data"] for s in option["series"] if s.get("name") == name]
        for name in ("beyond the edge", "readings", "spike")
    }
    below, above = drawn["beyond the edge"]
    assert below.tolist() == [[60 * QUARTER / 1000, low, -1e38]]
    assert above.tolist() == [[30 * QUARTER / 1000, high, 1e38]]
    for points in (drawn["readings"][0], drawn["spike"][0]):
        assert (points[:, 1].min(), points[:, 1].max()) == (low, high)
        assert (points[:, 2].min(), points[:, 2].max()) == (-1e38, 1e38)


def test_scaled_to_all_readings_the_axis_finds_its_own_ends() -> None:
    option = layers([trace_of(np.ones(50))], Window(0, 50 * QUARTER, 100, KINDS, LIGHT))
    assert (option["yAxis"][0]["min"], option["yAxis"][0]["max"]) == (None, None)


def test_the_axis_of_residuals_has_as_many_ticks_as_it_has_room_for() -> None:
    def labelled(largest: float) -> list[float]:
        places: list[float] = residual_ticks(float(compress(np.array([largest]))[0]))["axisLabel"][
            "customValues"
        ]
        ticks = (-1e4, -1e3, -100, -30, -10, -3, 0, 3, 10, 30, 100, 1e3, 1e4)
        return [tick for tick in ticks if any(np.isclose(compress(np.array([tick])), places))]

    assert labelled(5) == [-10, -3, 0, 3, 10]
    assert labelled(1e5) == [-1000, -30, 0, 30, 1000]


def test_a_sensor_without_readings_is_an_empty_panel() -> None:
    assert not drawn(trace_of(np.empty(0)), end=HOUR)


def test_several_sensors_share_the_time_and_the_panel_of_residuals() -> None:
    window = Window(0, 10 * HOUR, 100, KINDS, DARK)
    traces = [trace_of(np.ones(40), name="a"), trace_of(np.ones(40), name="b")]
    option = layers(traces, window)
    assert option["legend"]["data"] == ["± 3 sd", "readings", "model", "a", "b"]
    assert [s["xAxisIndex"] for s in option["series"] if s.get("name") in {"a", "b"}] == [2, 2]
    panels = frame(["a", "b"], DARK, narrow=False)
    assert len(panels["grid"]) == len(panels["xAxis"]) == 3
    assert panels["dataZoom"][0]["xAxisIndex"] == [0, 1, 2]


def test_no_name_of_a_sensor_becomes_javascript() -> None:
    name = "');alert(1);('"
    panels = frame([name], LIGHT, narrow=True)

    def scripts(option: object) -> list[str]:
        if isinstance(option, list):
            return [script for each in option for script in scripts(each)]
        if isinstance(option, dict):
            own = [str(value) for key, value in option.items() if key.startswith(":")]
            return own + scripts(list(option.values()))
        return []

    assert scripts(panels)
    assert "alert" not in json.dumps(scripts(panels)) + time_axes((0, HOUR), (0, HOUR), 1, most=5)
