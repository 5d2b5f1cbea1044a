import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.dates import date2num
from PIL import Image

from iot_pipeline.detection import Detection, Event, SensorModel, detect_anomalies
from iot_pipeline.detection.types import Curve
from iot_pipeline.kinds import COLOURS
from iot_pipeline.report.plot import plot_sensor, render
from iot_pipeline.samples.series import ANOMALIES

MINUTE = np.timedelta64(1, "m")
START = np.datetime64("2013-10-27T00:00", "us")
TIMES = START + 15 * MINUTE * np.arange(200)


def values_and_detection(
    kinds: dict[int, str] | None = None, *, events: tuple[Event, ...] = (), breakpoints: tuple[int, ...] = ()
) -> tuple[npt.NDArray[np.float64], Detection]:
    """Make a constant sensor around 100 with a noise of 10, flagged where told."""
    values = 100 + 10 * np.random.default_rng(1).standard_normal(len(TIMES))
    labels = np.array([(kinds or {}).get(row, "") for row in range(len(TIMES))])
    model = SensorModel(
        name="constant",
        breakpoints=tuple(TIMES[list(breakpoints)]),
        parameters=(),
        noise_sd=10.0,
        tail_freedom=np.inf,
        autocorrelation=0.0,
        n_points=len(TIMES),
        misfit=False,
        reasoning="",
        origin=START,
        trend=Curve(np.array([0.0]), np.array([100.0])),
        cycles=(),
        noise=Curve(np.array([0.0]), np.array([10.0])),
    )
    detection = Detection(
        flags=labels != "",
        scores=np.abs(values - 100) / 10,
        expected=np.full(len(TIMES), 100.0),
        kinds=labels,
        event_ids=np.full(len(TIMES), -1),
        events=events,
        model=model,
    )
    return values, detection


def head(count: int) -> tuple[npt.NDArray[np.float64], Detection]:
    values, detection = values_and_detection()
    shorter = replace(detection, expected=detection.expected[:count], kinds=detection.kinds[:count])
    return values[:count], shorter


def on_axis(time: np.datetime64) -> float:
    return float(date2num(time))  # type: ignore[no-untyped-call]


def drawn(panel: Axes, label: str) -> npt.NDArray[np.float64]:
    """Give the points of a labelled line, float64[n, 2]."""
    (line,) = (line for line in panel.lines if str(line.get_label()).startswith(label))
    return np.asarray(line.get_xydata(), dtype=np.float64)


def test_a_figure_has_a_panel_of_readings_and_one_of_residuals() -> None:
    above, below = plot_sensor("sensor_00000", TIMES, *values_and_detection()).axes

    assert (above.get_ylabel(), below.get_ylabel()) == ("reading", "residual (sd)")
    assert drawn(above, "readings")[:, 1] == pytest.approx(100 + 10 * drawn(below, "readings")[:, 1])


def test_the_time_axis_shows_berlin() -> None:
    _, below = plot_sensor("sensor_00000", TIMES[:5], *head(5)).axes

    # 00:00 UTC is 02:00 in summer; an hour later it is 02:00 once more.
    formatter = below.xaxis.get_major_formatter()
    assert formatter.format_ticks([on_axis(TIMES[1])]) == ["02:15"]


def test_flagged_readings_are_marked_and_counted_by_kind() -> None:
    values, detection = values_and_detection({10: "spike", 50: "level_shift", 51: "level_shift"})
    values[10] = 500
    figure = plot_sensor("sensor_00000", TIMES, values, detection)

    assert drawn(figure.axes[0], "spike").tolist() == [[on_axis(TIMES[10]), 500]]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["readings", "model", "± 3 sd of noise", "level shift (2)", "spike (1)"]


def test_an_unknown_kind_is_drawn_too() -> None:
    figure = plot_sensor("sensor_00000", TIMES, *values_and_detection({10: "novelty"}))

    assert len(drawn(figure.axes[0], "novelty (1)")) == 1


def test_a_breakpoint_is_a_vertical_line_in_both_panels() -> None:
    figure = plot_sensor("sensor_00000", TIMES, *values_and_detection(breakpoints=(70,)))

    for panel in figure.axes:
        assert drawn(panel, "breakpoint")[:, 0].tolist() == [on_axis(TIMES[70])] * 2


def test_an_event_that_lasts_is_shaded() -> None:
    spell = Event("stuck", TIMES[20], TIMES[40], n_points=21, peak_score=9.0, mean_residual=0.0)
    moment = Event("spike", TIMES[90], TIMES[90], n_points=1, peak_score=9.0, mean_residual=90.0)
    above, _ = plot_sensor("sensor_00000", TIMES, *values_and_detection(events=(spell, moment))).axes

    (patch,) = above.patches
    left, right = patch.get_extents().transformed(above.transData.inverted()).intervalx
    assert (left, right) == pytest.approx((on_axis(TIMES[20]), on_axis(TIMES[40])))


def test_missing_readings_are_not_bridged() -> None:
    values, detection = values_and_detection()
    values[80:120] = np.nan
    above, _ = plot_sensor("sensor_00000", TIMES, values, detection).axes

    line = drawn(above, "readings")
    assert line[np.isnan(line[:, 1]), 0].tolist() == [on_axis(TIMES[120])]


def test_the_order_of_the_readings_does_not_matter() -> None:
    values, detection = values_and_detection({10: "spike"})
    upside_down = replace(detection, kinds=detection.kinds[::-1])

    assert render(plot_sensor("sensor_00000", TIMES, values, detection)) == render(
        plot_sensor("sensor_00000", TIMES[::-1], values[::-1], upside_down)
    )


def test_a_window_limits_what_is_drawn() -> None:
    values, detection = values_and_detection(breakpoints=(10, 70))
    above, _ = plot_sensor("sensor_00000", TIMES, values, detection, start=TIMES[50], end=TIMES[99]).axes

    assert len(drawn(above, "readings")) == 50
    left, right = above.get_xlim()
    assert on_axis(TIMES[49]) < left < on_axis(TIMES[50])
    assert on_axis(TIMES[99]) < right < on_axis(TIMES[100])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_readings_make_a_picture(count: int) -> None:
    assert render(plot_sensor("sensor_00000", TIMES[:count], *head(count)))


def test_a_name_is_not_read_as_a_formula() -> None:
    assert render(plot_sensor(r"$\frac{", TIMES, *values_and_detection()))


def test_a_name_in_a_script_that_the_font_lacks_is_drawn_without_a_warning() -> None:
    assert render(plot_sensor("温度 1", TIMES, *values_and_detection()))


def test_a_picture_is_a_png_of_960_by_600_pixels() -> None:
    picture = render(plot_sensor("sensor_00000", TIMES, *values_and_detection()))

    assert picture.startswith(b"\x89PNG")
    assert (int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])) == (960, 600)


@pytest.mark.parametrize("kind", COLOURS)
def test_a_single_flagged_reading_has_the_colour_of_its_kind(kind: str) -> None:
    values, detection = values_and_detection({10: kind})
    values[10] = 500
    picture = Image.open(io.BytesIO(render(plot_sensor("sensor_00000", TIMES, values, detection))))
    found = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    wanted = [round(255 * part) for part in to_rgb(COLOURS[kind])]
    assert np.abs(found - wanted).sum(axis=1).min() <= 6


def test_drawing_leaves_no_figure_behind() -> None:
    plot_sensor("sensor_00000", TIMES, *values_and_detection())

    assert plt.get_fignums() == []


def test_the_legend_of_all_kinds_fits_above_the_panels() -> None:
    kinds = {row: kind for kind, row in zip(ANOMALIES * 120, range(840), strict=True)}
    values, detection = values_and_detection(kinds, breakpoints=(150,))
    figure = plot_sensor("sensor", TIMES, values, detection)
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= figure.axes[0].get_window_extent().y1


LARGEST = np.finfo(np.float64).max


def title_of(panel: Axes) -> str:
    return panel.get_title(loc="right")


@pytest.mark.parametrize("value", [1e290, 1e299, 1e300, 1e305, LARGEST])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_reading_far_beyond_all_others_is_drawn_at_the_edge_and_the_picture_says_so(
    value: float, sign: int
) -> None:
    values, detection = values_and_detection({10: "spike"})
    values[10] = sign * value
    figure = plot_sensor("sensor_00000", TIMES, values, detection)

    above, below = figure.axes
    assert title_of(above) == f"1 reading lies beyond the edge, as far as {sign * value:.3g}"
    ((at, height),) = drawn(above, "spike")
    assert at == on_axis(TIMES[10])
    assert 130 < sign * (height - 100) + 100 < 200
    assert np.ptp(drawn(above, "readings")[:, 1]) < 150  # the others are no flat line
    assert np.isfinite(drawn(below, "spike")).all()
    assert render(figure).startswith(b"\x89PNG")


def test_readings_far_beyond_on_both_sides_are_counted_together() -> None:
    values, detection = values_and_detection({10: "spike", 20: "spike"})
    values[10], values[20] = LARGEST, -1e300
    figure = plot_sensor("sensor_00000", TIMES, values, detection)

    assert title_of(figure.axes[0]) == "2 readings lie beyond the edge, as far as 1.8e+308"
    assert [line.get_marker() for line in figure.axes[0].lines][-2:] == ["^", "v"]
    assert render(figure)


def test_an_ordinary_spike_is_drawn_where_it_is() -> None:
    values, detection = values_and_detection({10: "spike"})
    values[10] = 20_000
    above, _ = plot_sensor("sensor_00000", TIMES, values, detection).axes

    assert drawn(above, "spike")[:, 1].tolist() == [20_000]
    assert title_of(above) == ""


@pytest.mark.parametrize("scale", [1e150, 1e290, 1e306])
def test_a_sensor_all_of_whose_readings_are_huge_is_drawn_in_a_unit_of_its_own(scale: float) -> None:
    values, detection = values_and_detection()
    model = replace(
        detection.model,
        trend=Curve(np.array([0.0]), np.array([100 * scale])),
        noise=Curve(np.array([0.0]), np.array([10 * scale])),
    )
    huge = replace(detection, expected=detection.expected * scale, model=model)
    figure = plot_sensor("sensor_00000", TIMES, values * scale, huge)

    above, _ = figure.axes
    assert above.get_ylabel() == f"reading / {100 * scale:g}"
    assert drawn(above, "readings")[:, 1].mean() == pytest.approx(1, abs=0.05)
    assert render(figure)


@pytest.mark.parametrize("fault", ["one", "alternating", "constant", "many"])
@pytest.mark.parametrize("value", [1e290, LARGEST])
def test_what_the_detector_makes_of_error_values_can_be_drawn(fault: str, value: float) -> None:
    values, _ = values_and_detection()
    where = {
        "one": slice(70, 71),
        "alternating": slice(None, None, 2),
        "constant": slice(None),
        "many": slice(40, 90),
    }
    values[where[fault]] = value
    if fault == "alternating":
        values[1::2] = -value
    with np.errstate(all="ignore"):
        detection = detect_anomalies(TIMES, values)

    assert render(plot_sensor("sensor_00000", TIMES, values, detection)).startswith(b"\x89PNG")
    assert fault != "one" or detection.flags[70]
