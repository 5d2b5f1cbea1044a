"""The two charts on the page: they draw what they are handed, and say which range somebody has chosen."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

from nicegui import events, ui

from iot_pipeline.explore import _frame, _heat
from iot_pipeline.explore._browser import Looks
from iot_pipeline.explore._data import Fleet
from iot_pipeline.explore._layers import Trace, Window, layers
from iot_pipeline.thinning import IntArray


class OnRange(Protocol):
    """Called with a range, in microseconds since the epoch, and whether the chart's axes show it already."""

    async def __call__(self, start: float, end: float, *, placed: bool = False) -> None: ...


# Dragging selects a range.
_DRAG = {"type": "takeGlobalCursor", "key": "dataZoomSelect", "dataZoomSelectActive": True}
_SAVE = """const link = document.createElement('a');
link.href = getElement(%d).chart.getDataURL({pixelRatio: 2, backgroundColor: %s});
link.download = 'readings.png'; link.click();"""
_ZOOM_FIELDS = ["batch", "start", "end", "startValue", "endValue"]


def chosen_range(zoom: dict[str, Any], left: float, right: float) -> tuple[float, float, bool]:
    """Return the range of an axis that a zoom event of ECharts is about.

    Args:
        zoom: The event: of a wheel or slider in percent of the axis, of a selection in its unit.
        left: The axis' left end.
        right: Its right end.

    Returns:
        Start and end in the axis' unit, and whether the chart shows exactly that already.
    """
    zoom = (zoom.get("batch") or [zoom])[0]
    if zoom.get("start") is not None and zoom.get("startValue") is None:
        width = (right - left) / 100
        return left + zoom["start"] * width, left + zoom["end"] * width, True
    start, end = sorted((float(zoom["startValue"]), float(zoom["endValue"])))
    return max(start, left), min(end, right), False


class Chart:
    """Readings, models and residuals of some sensors.

    Attributes:
        extent: The first and the last instant that has a reading, or of all sensors' where these have none.
    """

    def __init__(self, *, on_range: OnRange, on_back: Callable[[], None]) -> None:
        """Put an empty chart where the page is being built."""
        self.extent = self._axis = (0, 1)
        self._looks = Looks()
        self._traces: Sequence[Trace] = ()
        self._on_range = on_range
        self._element = ui.echart({"series": []})
        self._element.on("chart:datazoom", self._zoomed, _ZOOM_FIELDS, throttle=0.05)
        self._element.on("dblclick", on_back, [])

    def prepare(self, traces: Sequence[Trace], looks: Looks, *, otherwise: tuple[int, int]) -> None:
        """Draw the panels that readings go into; `otherwise` is the extent where there are none."""
        self._traces, self._looks = traces, looks
        found = [trace.judged.instants for trace in traces if len(trace.judged.instants)]
        self.extent = (min(int(i[0]) for i in found), max(int(i[-1]) for i in found)) if found else otherwise
        self._element.style(f"height: {_frame.height_of(len(traces))}px")
        titles = [t.name if len(t.judged.instants) else f"{t.name} has no readings" for t in traces]
        _replace_options(self._element, _frame.frame(titles, looks.palette, narrow=looks.narrow))

    def draw(self, start: int, end: int, kinds: Sequence[str], *, bulk: bool, placed: bool) -> None:
        """Draw a range, scaled to the bulk of the readings or to all; `placed`: the axes show it already."""
        narrow, palette = self._looks.narrow, self._looks.palette
        option = layers(self._traces, Window(start, end, self._looks.columns, kinds, palette, bulk))
        if not placed:
            # What lies beyond all readings is shown empty: ECharts would show what is next to it.
            self._axis = (min(self.extent[0], start), max(self.extent[1], end))
            option["dataZoom"] = _frame.place_of(start, end)
        axis = _frame.time_axes(self._axis, (start, end), len(self._traces), most=4 if narrow else 9)
        _set_option(self._element, axis, option)

    def save_png(self) -> None:
        """Let the browser save a picture of what is drawn."""
        ui.run_javascript(_SAVE % (self._element.id, json.dumps(self._looks.palette.back)))

    async def _zoomed(self, event: events.GenericEventArguments) -> None:
        left, right = self._axis
        start, end, placed = chosen_range(event.args, left / 1000, right / 1000)
        await self._on_range(start * 1000, end * 1000, placed=placed)


class HeatMap:
    """All sensors by time."""

    def __init__(
        self,
        *,
        on_range: OnRange,
        on_back: Callable[[], None],
        on_sensor: Callable[[str], Awaitable[None]],
    ) -> None:
        """Put an empty heat map where the page is being built."""
        self._range = (0, 1)
        self._bins = 1
        self._names: Sequence[str] = ()
        self._looks: Looks | None = None
        self._on_range, self._on_sensor = on_range, on_sensor
        self._element = ui.echart({"series": []}, on_point_click=self._clicked)
        self._element.on("chart:datazoom", self._zoomed, _ZOOM_FIELDS, throttle=0.1)
        self._element.on("dblclick", on_back, [])

    def draw(self, fleet: Fleet, order: IntArray, start: int, end: int, looks: Looks) -> None:
        """Draw a range, the sensors in an order."""
        if looks != self._looks or len(order) != len(self._names):
            self._looks = looks
            self._element.style(f"height: {_heat.height_of(len(order))}px")
            _replace_options(self._element, _heat.frame(looks.palette, narrow=looks.narrow))
        self._range, self._bins = (start, end), 60 if looks.narrow else 160
        self._names = [fleet.sensors[position].name for position in order]
        _set_option(
            self._element,
            *_heat.cells(fleet.events, order.argsort(), self._names, start, end, bins=self._bins),
        )

    async def _zoomed(self, event: events.GenericEventArguments) -> None:
        left, right = self._range
        width = (right - left) / self._bins
        first, last, percent = chosen_range(event.args, 0, self._bins)
        await self._on_range(left + first * width, left + (last if percent else last + 1) * width)

    async def _clicked(self, event: events.EChartPointClickEventArguments) -> None:
        _, row, _ = cast("list[float]", event.data)
        await self._on_sensor(self._names[int(row)])


def _replace_options(chart: ui.echart, options: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()
    chart.run_chart_method("dispatchAction", _DRAG)


def _set_option(chart: ui.echart, axis: str, option: dict[str, Any]) -> None:
    # Around NiceGUI's options, which the browser would watch for changes point by point.
    chart.run_chart_method(":setOption", axis, "{lazyUpdate: true}")
    chart.run_chart_method("setOption", option, {"replaceMerge": ["series"]})
