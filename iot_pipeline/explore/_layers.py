"""What is drawn in a chart's panels in a range of time: readings, model, what was flagged, residuals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iot_pipeline.explore._data import Flags, Judged
from iot_pipeline.explore._fleet import Events
from iot_pipeline.explore._frame import residual_ticks
from iot_pipeline.explore._scale import HUGE, bulk_edges
from iot_pipeline.explore._style import SYMBOLS, Option, Palette
from iot_pipeline.kinds import title
from iot_pipeline.thinning import (
    FloatArray,
    IndexArray,
    IntArray,
    breaks,
    compress,
    one_per_pixel,
    pixel_columns,
    thin,
)

_FEW = 200  # readings that are drawn as dots too
_MARKER_COLUMNS, _MARKER_ROWS = 1000, 400

_LINE: Option = {"type": "line", "symbol": "none", "silent": True, "emphasis": {"disabled": True}}
_MARKER: Option = {"type": "scatter", "symbolSize": 8, "z": 6}
# What the tooltip says of a point is not always where it is drawn.
_TOLD: Option = {"encode": {"x": 0, "y": 1, "tooltip": [2]}}


@dataclass(frozen=True, eq=False, slots=True)
class Trace:
    """A sensor to be drawn: its readings and model, what was flagged, and its events alone."""

    name: str
    judged: Judged
    flags: Flags | None
    events: Events


@dataclass(frozen=True, slots=True)
class Window:
    """What part of the readings is drawn, and how.

    Attributes:
        start: Microseconds since the epoch.
        end: Likewise, included.
        columns: How wide the panels are in pixels.
        kinds: Names of the kinds of events by their number.
        palette: Colours.
        bulk: Whether the axes are scaled to the bulk of the readings, with the others at the edge.
    """

    start: int
    end: int
    columns: int
    kinds: Sequence[str]
    palette: Palette
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class _Panel:
    """Where a sensor is drawn: the axes of its readings and of its residuals, which have a title.

    `edges` are the values at the panel's edges, if not all readings lie between them.
    """

    above: Option
    below: Option
    colour: str
    title: str
    edges: tuple[float, float] | None

    @property
    def told(self) -> Option:
        """What the tooltip says of readings."""
        return _TOLD if self.edges else {}

    def places(self, values: FloatArray) -> list[FloatArray]:
        """Return where readings are drawn, and after that what is told of them."""
        drawn = np.clip(values, *(self.edges or (-HUGE, HUGE)))
        return [drawn, values] if self.edges else [drawn]


def layers(traces: Sequence[Trace], window: Window) -> Option:
    """Return what is drawn in a range of time, thinned to the pixels that there are.

    A sensor has the panel of its number; the residuals of all share the one after these.

    Returns:
        Series, to take the place of all that there were; the legend's entries, and the scales of readings.
    """
    below = _axes(len(traces))
    series: list[Option] = []
    scales: list[Option] = []
    for number, trace in enumerate(traces):
        alone = len(traces) == 1
        colour = window.palette.readings if alone else window.palette.traces[number]
        inside = slice(*np.searchsorted(trace.judged.instants, [window.start, window.end + 1]).tolist())
        edges = bulk_edges(trace.judged, inside) if window.bulk else None
        panel = _Panel(_axes(number), below, colour, "residual" if alone else trace.name, edges)
        series += _curves(trace, window, panel)
        if trace.flags:
            series += _markers(trace.flags, trace.judged, window, panel)
        if edges:
            series += _beyond(trace.judged, inside, edges, window, panel.above)
        scales.append(_scale(edges))
    names = dict.fromkeys(each["name"] for each in series if "name" in each)
    drawn = [np.abs(each["data"][:, 1]) for each in series if each["xAxisIndex"] == len(traces)]
    largest = max((float(np.nanmax(sizes, initial=0.0)) for sizes in drawn), default=0.0)
    return {
        "series": series,
        "legend": {"data": list(names)},
        "yAxis": [*scales, residual_ticks(largest)],
    }


def _curves(trace: Trace, window: Window, panel: _Panel) -> list[Option]:
    judged, palette, above, below = trace.judged, window.palette, panel.above, panel.below
    # One reading beyond each edge, so that lines run up to it.
    first = max(int(np.searchsorted(judged.instants, window.start)) - 1, 0)
    stop = int(np.searchsorted(judged.instants, window.end, side="right")) + 1
    instants, values = judged.instants[first:stop], judged.values[first:stop]
    expected, noise = judged.expected[first:stop], judged.noise[first:stop]
    if not len(instants):
        return []
    firsts = pixel_columns(instants, min(window.start, int(instants[0])), window.end, window.columns)
    residuals = _residuals(values, expected, noise)
    width = (window.end - window.start) / window.columns
    thinned, thinned_residuals = thin(values, firsts), thin(residuals, firsts)
    drawn: Option = {"lineStyle": {"width": 1, "color": panel.colour}, "itemStyle": {"color": panel.colour}}
    if len(values) <= _FEW:
        drawn |= {"symbol": "circle", "symbolSize": 4, "showSymbol": True}
    low = np.minimum.reduceat(expected - 3 * noise, firsts)
    high = np.maximum.reduceat(expected + 3 * noise, firsts)
    mean = np.add.reduceat(expected, firsts) / np.diff(np.append(firsts, len(expected)))
    at = instants[firsts]
    # The band is an area stacked upon its lower edge.
    edge = {"color": palette.model, "width": 0.8, "opacity": 0.6}
    stacked = {**_LINE, **above, "stack": str(above), "stackStrategy": "all", "lineStyle": edge, "z": 4}
    stacked["tooltip"] = {"show": False}
    return [
        {**stacked, "data": _points(at, low)},
        {
            **stacked,
            "name": "± 3 sd",
            "data": _points(at, high - low),
            "itemStyle": {"color": palette.model, "opacity": 0.35},
            "areaStyle": {"color": palette.model, "opacity": 0.16},
        },
        {
            **_LINE,
            **panel.told,
            **above,
            **drawn,
            "name": "readings",
            "data": _broken(instants, thinned, width, *panel.places(values)),
            "markArea": {"silent": True, "data": _shades(trace, window)},
            "markLine": _breakpoints(judged.breakpoints, window),
        },
        {
            **_LINE,
            **above,
            "name": "model",
            "data": _points(at, mean),
            "z": 5,
            "lineStyle": {"width": 2, "color": palette.model},
            "itemStyle": {"color": palette.model},
        },
        {
            **_LINE,
            **_TOLD,
            **below,
            **drawn,
            "name": panel.title,
            "data": _broken(instants, thinned_residuals, width, compress(residuals), residuals),
            "markArea": {
                "silent": True,
                "itemStyle": {"color": palette.model, "opacity": 0.12},
                "data": [[{"yAxis": -3}, {"yAxis": 3}]],
            },
        },
    ]


def _markers(flags: Flags, judged: Judged, window: Window, panel: _Panel) -> list[Option]:
    """Mark flagged readings by kind, each one that isn't hidden behind another."""
    inside = slice(*np.searchsorted(flags.instants, [window.start, window.end + 1]).tolist())
    instants, values, kind = flags.instants[inside], flags.values[inside], flags.kinds[inside]
    noise = judged.noise[np.clip(np.searchsorted(judged.instants, instants), 0, len(judged.noise) - 1)]
    residuals = _residuals(values, flags.expected[inside], noise)
    result: list[Option] = []
    for number in np.unique(kind):
        here = np.flatnonzero(kind == number)
        x = instants[here].astype(np.float64)
        here = here[one_per_pixel(x, panel.places(values[here])[0], _MARKER_COLUMNS, _MARKER_ROWS)]
        name, colours = window.kinds[number], window.palette
        marker = {
            **_MARKER,
            "name": title(name),
            "symbol": SYMBOLS.get(name, "pin"),
            "itemStyle": {
                "color": colours.kind(name),
                "opacity": 1,
                "borderColor": colours.back,
                "borderWidth": 0.5,
            },
        }
        at, value, size = instants[here], values[here], residuals[here]
        result += [
            {**marker, **panel.told, **panel.above, "data": _points(at, *panel.places(value))},
            {**marker, **_TOLD, **panel.below, "data": _points(at, compress(size), size)},
        ]
    return result


def _beyond(
    judged: Judged, inside: slice, edges: tuple[float, float], window: Window, above: Option
) -> list[Option]:
    """Mark with arrows the readings that lie beyond the edges of their panel."""
    instants, values = judged.instants[inside], judged.values[inside]
    result: list[Option] = []
    for edge, beyond, turn in zip(edges, (values < edges[0], values > edges[1]), (180, 0), strict=True):
        here = np.flatnonzero(beyond)
        if len(here):
            here = here[one_per_pixel(instants[here].astype(np.float64), values[here], _MARKER_COLUMNS, 1)]
            arrow = {
                "name": "beyond the edge",
                "symbol": "triangle",
                "symbolRotate": turn,
                "symbolOffset": [0, "-80%" if turn else "80%"],
                "itemStyle": {"color": window.palette.ink},
                "data": _points(instants[here], np.full(len(here), edge), values[here]),
            }
            result.append({**_MARKER, **_TOLD, **above, **arrow})
    return result


def _shades(trace: Trace, window: Window) -> list[list[Option]]:
    """Shade events; a gap from the last reading before it."""
    events, instants = trace.events, trace.judged.instants
    shades: list[list[Option]] = []
    for position in events.within(window.start, window.end):
        kind, start, end = window.kinds[events.kind[position]], events.start[position], events.end[position]
        if kind == "gap" and len(instants):
            start = min(start, instants[max(np.searchsorted(instants, start) - 1, 0)])
        if start < end:
            style = {"color": window.palette.kind(kind), "opacity": 0.18}
            shades.append([{"xAxis": start / 1000, "itemStyle": style}, {"xAxis": end / 1000}])
    return shades


def _breakpoints(places: IntArray, window: Window) -> Option:
    return {
        "silent": True,
        "symbol": "none",
        "label": {"show": False},
        "lineStyle": {"color": window.palette.ink, "type": "dashed", "width": 1, "opacity": 0.7},
        "data": [{"xAxis": place / 1000} for place in places.tolist() if window.start <= place <= window.end],
    }


def _scale(edges: tuple[float, float] | None) -> Option:
    """Return the ends of an axis, whose labels are too long to be shown; without edges it finds its own."""
    low, high = edges or (None, None)
    shown = {"showMinLabel": not edges, "showMaxLabel": not edges}
    return {"min": low, "max": high, "axisLabel": shown}


def _axes(number: int) -> Option:
    return {"xAxisIndex": number, "yAxisIndex": number}


def _broken(instants: IntArray, chosen: IndexArray, width: float, *columns: FloatArray) -> FloatArray:
    """Return the points of a line that is broken where nobody measured."""
    points = _points(instants[chosen], *(column[chosen] for column in columns))
    gaps = breaks(instants, chosen, width)
    holes = points[gaps]
    holes[:, 1:] = np.nan
    return np.insert(points, gaps, holes, axis=0)


def _points(instants: IntArray, *columns: FloatArray) -> FloatArray:
    return np.column_stack((instants / 1000, *columns))


def _residuals(values: FloatArray, expected: FloatArray, noise: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        return np.clip((values - expected) / noise, -HUGE, HUGE)
