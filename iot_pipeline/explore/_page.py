"""The page: where things are, and what happens when somebody touches them.

What is shown is computed elsewhere. Each tab has a `Page` of its own; readings and models are shared by all.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nicegui import events, run, ui

from iot_pipeline.anomalies.annotations import annotate
from iot_pipeline.berlin import DAY, from_instant
from iot_pipeline.errors import IotPipelineError
from iot_pipeline.explore import _browser, _data, _export
from iot_pipeline.explore._browser import Looks
from iot_pipeline.explore._canvas import Chart, HeatMap
from iot_pipeline.explore._fleet import Incident
from iot_pipeline.explore._layers import Trace
from iot_pipeline.explore._panels import Incidents, SensorPanel, Sensors
from iot_pipeline.explore._style import DARK
from iot_pipeline.explore._toolbar import Action, Toolbar, show_keys
from iot_pipeline.explore._view import MOST_SENSORS, View
from iot_pipeline.kinds import title

if TYPE_CHECKING:
    from collections.abc import Callable

_PULSE = 0.25
"""Seconds: when somebody has stopped zooming for so long, the rest of the page follows."""
_LOOKS_EVERY = 12
"""Pulses after which the warehouse is looked at again."""
_GESTURE = 1.5
"""Seconds within which movements are one, and the browser's back button takes them back together."""
_INCIDENT_SENSORS = 4


class Page:
    """One tab."""

    def __init__(self, query: str, author: str = "") -> None:
        """Lay out the page; it is empty until `start`.

        Args:
            query: The part of its link after the question mark.
            author: Who looks at it, as far as that is known.
        """
        self._asked = query
        self._author = author
        self._view = View()
        self._wanted: View | None = None
        self._drawing = self._anew = self._placed = False
        self._version: _data.Version = ()
        self._fleet: _data.Fleet | None = None
        self._event: int | None = None
        self._looks = Looks()
        self._settled: object = None
        self._moved_at = self._drawn_at = 0.0
        self._pulses = 0
        self._keys: dict[str, Callable[[], Any]] = {
            "+": lambda: self._stretch(0.25, -0.25),
            "-": lambda: self._stretch(-0.5, 0.5),
            "ArrowLeft": lambda: self._stretch(-0.25, -0.25),
            "ArrowRight": lambda: self._stretch(0.25, 0.25),
            "n": lambda: self._next_event(1),
            "p": lambda: self._next_event(-1),
            "0": self._whole,
            "s": self._rescale,
            "Backspace": _browser.go_back,
            "/": lambda: self._sensors.search.run_method("focus"),
            "?": show_keys,
        }
        self._lay_out()

    def _lay_out(self) -> None:
        _browser.prepare(on_link=self._open, on_looks=self._look_again, on_no_way_back=self._whole)
        ui.keyboard(on_key=self._key, ignore=["input", "select", "textarea"])  # not buttons
        self._dark = ui.dark_mode(None)
        drawer = ui.left_drawer(value=None, fixed=True, bordered=True).props("width=312 breakpoint=1023")
        actions = [
            Action("zoom_out_map", "all readings (0)", self._whole),
            Action("undo", "the view before (double click)", _browser.go_back),
            Action("table_view", "what is shown as CSV", self._save_csv),
            Action("image", "what is shown as PNG", self._save_png),
            Action("dark_mode", "light or dark", self._toggle_dark),
            Action("help_outline", "keys (?)", show_keys),
        ]
        scale = Action("compress", "scale to the bulk of the readings (s)", self._rescale)
        self._toolbar = Toolbar(drawer, actions, scale=scale, on_range=self._choose_range)
        with drawer, ui.element("div").classes("fleet"):
            self._sensors = Sensors(on_open=self._open_sensor, on_compare=self._compare, on_sort=self._settle)
        self._notice = ui.label("reading …").classes("notice")
        with ui.element("main").classes("main") as self._main:
            with ui.element("div").classes("chart"):
                self._chart = Chart(on_range=self._choose_range, on_back=_browser.go_back)
            with ui.element("aside").classes("side"):
                self._sensor = SensorPanel(on_event=self._open_event, on_answer=self._answer)
            with ui.element("div").classes("all"):
                with ui.row().classes("section"):
                    ui.label("All sensors").classes("heading")
                    ui.label("strongest score by time; drag to look closer, click to open").classes("soft")
                self._heat = HeatMap(
                    on_range=self._choose_range, on_back=_browser.go_back, on_sensor=self._open_sensor
                )
                self._incidents = Incidents(on_open=self._open_incident)
        ui.timer(_PULSE, self._pulse)

    async def start(self) -> None:
        """Fill the page, once its browser is there."""
        self._looks = await _browser.look() or self._looks
        await self._refresh()
        await self._open(self._asked)

    async def _look_again(self) -> None:
        self._looks = await _browser.look() or self._looks
        await self._go(self._view, moved=False, anew=True)

    async def _toggle_dark(self) -> None:
        self._dark.set_value(self._looks.palette is not DARK)
        await self._look_again()

    async def _refresh(self) -> bool:
        """Look whether anything new has been committed, and read it."""
        try:
            version = await run.io_bound(_data.read_version)
            if version is None or version == self._version:
                return False
            fleet = await run.io_bound(_data.read_fleet, version)
            if fleet is None:  # the server is being stopped
                return False
            self._version, self._fleet = version, fleet
            self._sensors.show(fleet)
        except IotPipelineError as error:
            self._notice.set_text(str(error))
        self._notice.set_visibility(self._fleet is None)
        self._main.set_visibility(self._fleet is not None)
        return self._fleet is not None

    async def _pulse(self) -> None:
        self._pulses += 1
        if self._drawing:
            return
        if self._pulses % _LOOKS_EVERY == 0 and await self._refresh():
            await self._open(self._view.to_query())
        elif (
            self._settled != (self._version, self._view, self._looks)
            and time.monotonic() - self._drawn_at > _PULSE
        ):
            self._settle()

    async def _open(self, query: str) -> None:
        """Open what a link asks for, or the most severe sensor."""
        self._moved_at = 0.0
        try:
            view = View.from_query(query)
        except ValueError as error:
            ui.notify(str(error), type="warning")
            view = View()
        self._view = view
        if self._fleet is None:
            return
        for name in view.sensors:
            if name not in self._fleet.positions:
                ui.notify(f"there is no sensor {name!r}", type="warning")
        known = tuple(name for name in view.sensors if name in self._fleet.positions)
        worst = tuple(sensor.name for sensor in self._fleet.sensors[:1])
        await self._go(replace(view, sensors=known or worst), moved=False, anew=True)

    async def _go(self, view: View, *, moved: bool = True, anew: bool = False, placed: bool = False) -> None:
        """Look at something; while it is being drawn, only the latest wish is kept.

        Args:
            view: What to look at.
            moved: Whether it goes into the browser's history.
            anew: Whether the panels are to be drawn anew, as for other sensors.
            placed: Whether the chart's axes show it already, because somebody has zoomed in them.
        """
        if moved and view != self._view:
            recent = time.monotonic() - self._moved_at < _GESTURE and view.sensors == self._view.sensors
            self._moved_at = time.monotonic()
            (ui.navigate.history.replace if recent else ui.navigate.history.push)(f"?{view.to_query()}")
        self._anew |= anew or view.sensors != self._view.sensors
        self._placed = placed
        self._view = self._wanted = view
        if self._drawing:
            return
        self._drawing = True
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, None
                anew, self._anew = self._anew, False
                if anew:
                    await self._prepare(wanted)
                if self._fleet and not self._wanted:
                    start, end = wanted.range(self._chart.extent)
                    placed = self._placed and not anew
                    self._chart.draw(start, end, self._fleet.kinds, bulk=wanted.bulk, placed=placed)
                    self._drawn_at = time.monotonic()
        except IotPipelineError as error:
            ui.notify(str(error), type="negative")
        finally:
            self._drawing = False

    async def _prepare(self, view: View) -> None:
        """Read and judge the sensors, and draw the panels that their readings go into."""
        fleet = self._fleet
        if fleet is None or not view.sensors:
            return
        traces = []
        for name in view.sensors:
            judged = await run.io_bound(_data.judge, self._version, name)
            if judged is None:  # the server is being stopped
                return
            events_of = fleet.events.only(fleet.positions[name])
            traces.append(Trace(name, judged, fleet.flags.get(name), events_of))
        self._chart.prepare(traces, self._looks, otherwise=fleet.extent)
        self._event = None
        self._sensors.choose(view.sensors)
        self._sensor.show(fleet, view.sensors[0])

    def _settle(self) -> None:
        """Let the bar, the heat map, the ranks and the incidents follow the range that is shown."""
        if self._fleet is None:
            return
        self._settled = (self._version, self._view, self._looks)
        start, end = self._view.range(self._chart.extent)
        self._toolbar.show(start, end, bulk=self._view.bulk)
        order = self._sensors.rank(self._fleet, start, end)
        self._heat.draw(self._fleet, order, start, end, self._looks)
        self._incidents.show(self._fleet, start, end)

    async def _choose_range(self, start: float, end: float, *, placed: bool = False) -> None:
        await self._go(self._view.between(start, end), placed=placed)

    async def _stretch(self, left: float, right: float) -> None:
        """Move both ends by parts of the range, not beyond the readings."""
        first, last = self._chart.extent
        start, end = self._view.range(self._chart.extent)
        new_start, new_end = start + left * (end - start), end + right * (end - start)
        if new_end - new_start >= last - first:
            await self._whole()
            return
        beyond = min(new_start - first, 0.0) or max(new_end - last, 0.0)
        await self._choose_range(new_start - beyond, new_end - beyond)

    async def _whole(self) -> None:
        await self._go(replace(self._view, start=None, end=None))

    async def _rescale(self) -> None:
        await self._go(replace(self._view, bulk=not self._view.bulk))

    async def _open_sensor(self, name: str) -> None:
        await self._go(replace(self._view, sensors=(name,)))

    async def _compare(self, name: str) -> None:
        if len(self._view.sensors) == MOST_SENSORS and name not in self._view.sensors:
            ui.notify(f"{MOST_SENSORS} sensors fit side by side")
            return
        await self._go(self._view.toggled(name))

    async def _open_event(self, event: int) -> None:
        if self._fleet:
            found = self._fleet.events
            start, end = int(found.start[event]), int(found.end[event])
            margin = max(2 * (end - start), DAY // 2)
            await self._choose_range(start - margin, end + margin)
            self._event = event
            self._sensor.choose(event)

    async def _next_event(self, step: int) -> None:
        if self._fleet and self._view.sensors:
            own = self._fleet.events.of(self._fleet.positions[self._view.sensors[0]]).tolist()
            if own:
                place = own.index(self._event) + step if self._event in own else min(step, 0)
                await self._open_event(own[place % len(own)])

    async def _open_incident(self, incident: Incident) -> None:
        if self._fleet:
            strongest = incident.sensors[:_INCIDENT_SENSORS]
            names = tuple(self._fleet.sensors[position].name for position in strongest)
            margin = max(incident.end - incident.start, DAY // 4)
            view = replace(self._view, sensors=names)
            await self._go(view.between(incident.start - margin, incident.end + margin))

    async def _answer(self, kind: str, note: str) -> None:
        """Write down what somebody says about the chosen event, or the range that is shown."""
        if self._fleet is None:
            return
        start, end = self._view.range(self._chart.extent)
        if self._event is not None:
            start, end = int(self._fleet.events.start[self._event]), int(self._fleet.events.end[self._event])
        name = self._view.sensors[0]
        try:
            times = from_instant(start), from_instant(end)
            await run.io_bound(annotate, name, *times, kind, note=note, author=self._author)
        except (IotPipelineError, ValueError) as error:
            ui.notify(str(error), type="negative")
            return
        ui.notify(f"noted: {title(kind)}")
        self._sensor.clear_note()
        if await self._refresh():
            await self._open(self._view.to_query())

    def _save_csv(self) -> None:
        start, end = self._view.range(self._chart.extent)
        ui.download(f"{_export.READINGS}?{self._view.between(start, end).to_query()}")

    def _save_png(self) -> None:
        self._chart.save_png()

    def _key(self, event: events.KeyEventArguments) -> Any:
        held = event.modifiers
        action = self._keys.get(event.key.name)
        if action and event.action.keydown and not (held.ctrl or held.alt or held.meta):
            return action()  # NiceGUI awaits what it returns
        return None
