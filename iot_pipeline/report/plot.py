"""Plots a sensor's readings, its model and the flagged readings.

Only draws: loading and detection are done elsewhere.
"""

import io
import warnings

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import ScaledTranslation
from PIL import Image

from iot_pipeline.berlin import BERLIN
from iot_pipeline.detection import Detection
from iot_pipeline.kinds import COLOURS, title
from iot_pipeline.thinning import FloatArray, IndexArray, breaks, pixel_columns, thin

TimeArray = npt.NDArray[np.datetime64]

_COLUMNS = 1000  # about the width of the panels in pixels
_LEGEND_COLUMNS = 7  # as many as fit on one line
_LARGEST = 1e100  # somewhere above this matplotlib overflows
_FAR = 1000.0  # times all regular readings, which would then be squeezed into a flat line
_COLOURS = 64
_LARGEST_RESIDUAL = 3000.0
_CROWDED = 300.0  # from this residual on there is no room for small ticks

_MODEL = "#0072B2"
_READINGS = "#b0b0b0"
_OTHER = "#882255"
_MARKERS = {
    "spike": "o",
    "burst": "^",
    "level_shift": "s",
    "stuck": "D",
    "drift": ">",
    "variance": "X",
    "gap": "v",
}


def plot_sensor(
    name: str,
    timestamps: TimeArray,
    values: FloatArray,
    detection: Detection,
    *,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
) -> Figure:
    """Plot a sensor's readings with its model in the upper panel and the residuals in the lower one.

    Args:
        name: The sensor's name.
        timestamps: datetime64[n], UTC, in any order; the axis shows Europe/Berlin.
        values: float64[n]; values that aren't finite are left out.
        detection: The result of ``detect_anomalies`` for these readings.
        start: The first time to plot, UTC; by default the first reading.
        end: The last time to plot (inclusive), UTC; by default the last reading.

    Returns:
        The figure, 960 by 600 pixels; the residuals are in standard deviations. A reading so large that the
        others would appear as a flat line is drawn at the edge and marked as lying beyond it.
    """
    model = detection.model
    shown = np.isfinite(values) & np.isfinite(detection.expected)
    if start is not None:
        shown &= timestamps >= start
    if end is not None:
        shown &= timestamps <= end
    order = np.flatnonzero(shown)[np.argsort(timestamps[shown], kind="stable")]
    times, readings, expected = timestamps[order], values[order], detection.expected[order]
    noise = np.maximum(model.noise_at(times), np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        residuals = np.clip((readings - expected) / noise, -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL)
    unit = _unit(expected, noise)
    expected, noise = expected / unit, noise / unit
    inside, far = _clip(readings / unit, expected, noise)

    figure = Figure(figsize=(9.6, 6), dpi=100)
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    figure.subplots_adjust(left=0.075, right=0.985, top=0.86, bottom=0.085, hspace=0.06)
    figure.text(0.075, 0.955, name, size=14, weight="bold", parse_math=False)
    figure.text(0.985, 0.955, f"{model.name}, noise sd {model.noise_sd:.3g}", color="#555555", ha="right")
    for panel, points, centre, spread in (
        (above, inside, expected, noise),
        (below, residuals, np.zeros_like(expected), np.ones_like(noise)),
    ):
        panel.plot(*_thin_line(times, points), color=_READINGS, lw=0.7, label="readings")
        _draw_model(panel, times, centre, spread)
        _draw_flags(panel, times, points, detection.kinds[order])
        for event in detection.events:
            if event.start < event.end:
                panel.axvspan(event.start, event.end, color=COLOURS.get(event.kind, _OTHER), alpha=0.2, lw=0)
        for position in model.breakpoints:
            panel.axvline(position, color="#333333", lw=0.9, ls=(0, (4, 3)), label="breakpoint")
        panel.margins(y=0.08)
        panel.grid(color="#ececec", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    _label_axes(above, below, unit, np.abs(residuals).max(initial=0.0))
    if far.any():
        _mark_far(figure, above, times[far], inside[far], readings[far])
    if len(times):
        margin = (times[-1] - times[0]) / 200 + np.timedelta64(1, "m")
        below.set_xlim(times[0] - margin, times[-1] + margin)
    handles, labels = above.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    figure.legend(
        legend.values(),
        legend.keys(),
        loc="upper left",
        bbox_to_anchor=(0.068, 0.95),
        ncols=_LEGEND_COLUMNS if len(legend) <= _LEGEND_COLUMNS else -(-len(legend) // 2),
        columnspacing=1.5,
        frameon=False,
    )
    return figure


def render(figure: Figure, picture_format: str = "png") -> bytes:
    """Render a figure in one of matplotlib's formats, such as png, svg or pdf.

    A PNG picture has few colours, which makes it a third as large.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A sensor may be named in a script that the font lacks: a line per letter in every night's log.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=picture_format)
    if picture_format == "png":
        # An octree keeps the colour of a single marker; by default it would be mixed with those of the lines.
        picture = (
            Image.open(buffer)
            .convert("RGB")
            .quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        )
        buffer = io.BytesIO()
        picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def colour_of(name: str) -> str:
    """Return the colour of a kind of anomaly; the model's colour for any other name."""
    return COLOURS.get(name, _MODEL)


def _thin(times: TimeArray, values: FloatArray, columns: int) -> IndexArray:
    return thin(values, _columns(times, columns))


def _columns(times: TimeArray, columns: int) -> IndexArray:
    """Return the position of the first reading in each pixel column, as wide as the readings reach."""
    instants = times.astype(np.int64)
    if not len(instants):
        return np.empty(0, np.intp)
    return pixel_columns(instants, int(instants[0]), int(instants[-1]), columns)


def _thin_line(times: TimeArray, values: FloatArray) -> tuple[TimeArray, FloatArray]:
    """Thin a line, and break it where readings are missing so that it doesn't bridge gaps."""
    if len(times) == 0:
        return times, values
    chosen = _thin(times, values, _COLUMNS)
    instants = times.astype(np.int64)
    gaps = breaks(instants, chosen, float(instants[-1] - instants[0]) / _COLUMNS)
    times, values = times[chosen], values[chosen]
    return np.insert(times, gaps, times[gaps]), np.insert(values, gaps, np.nan)


def _unit(expected: FloatArray, noise: FloatArray) -> float:
    """Return the power of ten to divide by if even regular readings are too large to draw, else 1."""
    largest = max(np.abs(expected).max(initial=0.0), noise.max(initial=0.0))
    return float(10.0 ** np.floor(np.log10(largest))) if largest > _LARGEST else 1.0


def _clip(
    readings: FloatArray, expected: FloatArray, noise: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Move readings that are far beyond all others to the edge; also return which, bool[n]."""
    low, high = expected - 3 * noise, expected + 3 * noise
    far = np.abs(readings) > _FAR * max(np.abs(low).max(initial=1.0), np.abs(high).max(initial=1.0))
    if not far.any():
        return readings, far
    near = np.concatenate((readings[~far], low, high))
    margin = 0.25 * float(np.ptp(near)) or 1.0
    return np.clip(readings, near.min() - margin, near.max() + margin), far


def _mark_far(figure: Figure, panel: Axes, times: TimeArray, edges: FloatArray, readings: FloatArray) -> None:
    """Mark the readings beyond the edge with arrows."""
    for sign, marker in ((1, "^"), (-1, "v")):
        here = np.flatnonzero(np.sign(readings) == sign)
        chosen = here[_thin(times[here], edges[here], _COLUMNS // 4)]
        outwards = ScaledTranslation(0, sign * 9 / 72, figure.dpi_scale_trans)
        panel.plot(
            times[chosen], edges[chosen], marker, color="#333333", ms=7, transform=panel.transData + outwards
        )
    furthest = readings[np.argmax(np.abs(readings))]
    noun = "reading lies" if len(readings) == 1 else "readings lie"
    text = f"{len(readings):,} {noun} beyond the edge, as far as {furthest:.3g}"
    panel.set_title(text, loc="right", size=9, color="#333333", pad=3)


def _draw_model(panel: Axes, times: TimeArray, expected: FloatArray, noise: FloatArray) -> None:
    """Draw the model's mean over each pixel column; a faster season would become a solid block."""
    if len(times) == 0:
        return
    firsts = _columns(times, _COLUMNS)
    mean = np.add.reduceat(expected, firsts) / np.diff(np.append(firsts, len(expected)))
    low = np.minimum.reduceat(expected - 3 * noise, firsts)
    high = np.maximum.reduceat(expected + 3 * noise, firsts)
    at = times[firsts]
    panel.plot(at, mean, color=_MODEL, lw=1.6, label="model")
    panel.fill_between(at, low, high, fc=f"{_MODEL}26", ec=f"{_MODEL}99", lw=0.7, label="± 3 sd of noise")


def _draw_flags(panel: Axes, times: TimeArray, values: FloatArray, kinds: npt.NDArray[np.str_]) -> None:
    for kind in np.unique(kinds[kinds != ""]):
        here = np.flatnonzero(kinds == kind)
        # A marker covers some pixels.
        chosen = here[_thin(times[here], values[here], _COLUMNS // 4)]
        label = f"{title(kind)} ({len(here):,})"
        colour, marker = COLOURS.get(kind, _OTHER), _MARKERS.get(kind, "*")
        panel.plot(
            times[chosen], values[chosen], marker, ms=6, mec="white", mew=0.4, color=colour, label=label
        )


def _label_axes(above: Axes, below: Axes, unit: float, largest_residual: float) -> None:
    above.set_ylabel("reading" if unit == 1 else f"reading / {unit:g}")
    above.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    below.set_ylabel("residual (sd)")
    # Linear within the noise, logarithmic beyond, so that one huge residual doesn't flatten the rest.
    below.set_yscale("symlog", linthresh=6)
    ticks = [3, 10, 30, 100] if largest_residual < _CROWDED else [10, 100, 1000]
    below.yaxis.set_major_locator(FixedLocator([*(-tick for tick in ticks), 0, *ticks]))
    below.yaxis.set_minor_locator(NullLocator())
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    below.set_xlabel("time (Europe/Berlin)")
    locator = AutoDateLocator(tz=BERLIN)  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=BERLIN))  # type: ignore[no-untyped-call]
