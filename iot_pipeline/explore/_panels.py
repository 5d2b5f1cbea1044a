"""The lists beside and below the charts: sensors, one sensor's events, what happened together."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import numpy as np
from nicegui import events, ui

from iot_pipeline.berlin import describe_length, from_instant
from iot_pipeline.explore._data import Fleet
from iot_pipeline.explore._fleet import Incident, incidents, rank, sparklines
from iot_pipeline.kinds import ANNOTATIONS, counted, title
from iot_pipeline.thinning import IntArray

OnName = Callable[[str], Awaitable[None]]
_MOST_INCIDENTS = 50
_SEVERITY, _WINDOW = "severity", "this window"
_COMPARE = "'compare ' + props.row.name"
_EMIT_NAME = "() => emit(props.row.name)"


class Sensors:
    """All sensors, to be searched, sorted, opened and compared."""

    def __init__(self, *, on_open: OnName, on_compare: OnName, on_sort: Callable[[], None]) -> None:
        """Put an empty list where the page is being built."""
        self._sparks: list[str] = []
        self._chosen: tuple[str, ...] = ()
        self._shown: object = None
        search = ui.input(placeholder="name or label").classes("full-width")
        self.search = search.props('dense outlined clearable aria-label="search sensors"')
        self._sort = ui.toggle([_SEVERITY, _WINDOW], value=_SEVERITY, on_change=on_sort)
        self._sort.props('dense no-caps spread unelevated size="sm" aria-label="sort by"').classes(
            "full-width"
        )
        # Quasar searches what the columns' fields hold.
        columns = [_column("compare"), {**_column("name"), "field": "search"}, _column("spark")]
        columns += [_column("figure", number=True)]
        self._table = _table(columns, "name", on_open).classes("sensors")
        self._table.props("virtual-scroll hide-header")
        self._table.bind_filter_from(search, "value", lambda text: text or "")

        def compare(event: events.GenericEventArguments) -> Awaitable[None]:
            return on_compare(event.args)

        with _cell(self._table, "compare").props("auto-width"):
            box = _bound("q-checkbox", **{"model-value": "props.row.chosen", "aria-label": _COMPARE})
            box.props('dense size="xs" tabindex="-1"')
            box.on("update:model-value", compare, js_handler=_EMIT_NAME)
            box.on("click.stop", js_handler="() => {}")  # the row's own click would open the sensor
        with _cell(self._table, "name"), _bound("button", title="props.row.name").classes("name") as button:
            button.on("keydown.space.prevent", compare, js_handler=_EMIT_NAME)
            _bound("span", textContent="props.row.name")
            _bound("small", textContent="props.row.about")
        with (
            _cell(self._table, "spark").props("auto-width"),
            ui.element("svg").classes("spark").props('viewBox="0 0 40 14"'),
        ):
            _bound("path", d="props.row.spark")
        with _cell(self._table, "figure"):
            _bound("span", textContent="props.row.figure", title="props.row.hint")

    def show(self, fleet: Fleet) -> None:
        """Take over the events of a new version."""
        self._sparks = sparklines(fleet.events, len(fleet.sensors))
        self._shown = None

    def choose(self, names: tuple[str, ...]) -> None:
        """Mark the sensors that are looked at."""
        self._chosen = names
        self._table.rows = [{**row, "chosen": row["name"] in names} for row in self._table.rows]
        self._table.selected = [{"name": name} for name in names]

    def rank(self, fleet: Fleet, start: int, end: int) -> IntArray:
        """Sort the sensors as somebody wishes, and return their positions in that order.

        Args:
            fleet: All sensors.
            start: The window that is shown, in microseconds since the epoch.
            end: Likewise.
        """
        by_window = self._sort.value == _WINDOW
        if by_window:
            order, strongest, counts = rank(fleet.events, len(fleet.sensors), start, end)
        else:
            order = np.arange(len(fleet.sensors))
            strongest, counts = np.zeros(len(order)), np.array([s.n_events for s in fleet.sensors], np.int64)
        shown = (fleet, by_window and (start, end))
        if shown != self._shown:
            self._shown = shown
            self._table.rows = [
                self._row(fleet, position, int(counts[position]), float(strongest[position]))
                for position in order
            ]
        return order

    def _row(self, fleet: Fleet, position: int, count: int, score: float) -> dict[str, Any]:
        sensor = fleet.sensors[position]
        return {
            "name": sensor.name,
            "about": " · ".join(sensor.labels) or sensor.model,
            "search": " ".join([sensor.name, sensor.model, sensor.uuid, *sensor.labels]),
            "spark": self._sparks[position],
            "figure": f"{count:,}" if count else "",
            "hint": f"{count:,} events" + (f", the strongest scores {score:,.1f}" if score else ""),
            "chosen": sensor.name in self._chosen,
        }


class SensorPanel:
    """What there is to say about one sensor: its model, its events, and what people answer."""

    def __init__(
        self,
        *,
        on_event: Callable[[int], Awaitable[None]],
        on_answer: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """Put an empty panel where the page is being built."""
        self._name = ui.label().classes("sensor-name")
        self._model = ui.label().classes("soft")
        self._reasoning = ui.label()
        columns = [_column("start"), _column("kind", wrap=True), _column("length")]
        columns.append(_column("score", number=True))
        self._table = _table(columns, "id", on_event).classes("events")
        with _cell(self._table, "start"):
            _bound("button", textContent="props.value")
        self._about = ui.label().classes("soft")
        self._note = ui.input("note").props("dense outlined").classes("full-width")
        with ui.row().classes("answers"):
            for kind in sorted(ANNOTATIONS):
                button = ui.button(title(kind)).props("outline dense no-caps")
                button.on_click(lambda kind=kind: on_answer(kind, str(self._note.value or "")))

    def show(self, fleet: Fleet, name: str) -> None:
        """Show a sensor."""
        position = fleet.positions[name]
        sensor = fleet.sensors[position]
        self._name.set_text(name)
        model = sensor.model or "not judged yet"
        self._model.set_text(" · ".join([model, counted(sensor.n_readings, "reading"), *sensor.labels]))
        self._reasoning.set_text(sensor.reasoning)
        found = fleet.events
        self._table.rows = [
            {
                "id": int(event),
                "start": f"{from_instant(int(found.start[event])):%-d %b %Y %H:%M}",
                "kind": _words(fleet.kinds[found.kind[event]], found.annotation[event]),
                "length": describe_length(timedelta(microseconds=int(found.end[event] - found.start[event]))),
                "score": f"{found.peak_score[event]:,.1f}",
            }
            for event in found.of(position)
        ]
        self.choose(None)

    def clear_note(self) -> None:
        """Empty the field: what it said has been noted, and is about nothing else."""
        self._note.set_value("")

    def choose(self, event: int | None) -> None:
        """Mark the event that is talked about; None for the range that is shown."""
        chosen = next((row for row in self._table.rows if row["id"] == event), None)
        self._table.selected = [chosen] if chosen else []
        about = f"the {chosen['kind']} of {chosen['start']}" if chosen else "the range that is shown"
        self._about.set_text(f"Say about {about}:")


def _words(kind: str, annotation: str) -> str:
    return title(" · ".join(filter(None, (kind, annotation))))


class Incidents:
    """What happened together."""

    def __init__(self, *, on_open: Callable[[Incident], Awaitable[None]]) -> None:
        """Put an empty list where the page is being built."""
        self._found: list[Incident] = []
        with ui.row().classes("section"):
            ui.label("Incidents").classes("heading")
            self._summary = ui.label().classes("soft")
        columns = [_column("start"), _column("length"), _column("sensors", number=True)]
        columns += [_column("score", number=True), _column("strongest first", wrap=True)]
        self._table = _table(columns, "id", lambda number: on_open(self._found[number])).classes("incidents")
        with _cell(self._table, "start"):
            _bound("button", textContent="props.value")

    def show(self, fleet: Fleet, start: int, end: int) -> None:
        """Show those that touch a window."""
        found = [i for i in incidents(fleet.events) if i.start <= end and i.end >= start]
        self._found = found[:_MOST_INCIDENTS]
        more = f", the {_MOST_INCIDENTS} with the most sensors" if len(found) > _MOST_INCIDENTS else ""
        self._summary.set_text(f"{len(found):,} in this window{more}: events of several sensors at a time")
        self._table.rows = [_incident_row(fleet, *found) for found in enumerate(self._found)]


def _table(columns: list[dict[str, Any]], key: str, on_open: Callable[[Any], Awaitable[None]]) -> ui.table:
    """Put an empty table where the page is being built; a click on a row opens what its key names.

    Its cells are made of elements (see `_cell`), never of templates: NiceGUI makes what a template draws anew
    whenever anything on the page changes, and a row that is made anew loses the focus and half of a click.
    """
    table = ui.table(columns=columns, rows=[], row_key=key, pagination=0)
    table.on("rowClick", lambda event: on_open(event.args), js_handler=f"(_, row) => emit(row.{key})")
    return table.props("flat dense hide-bottom").classes("rows")


def _cell(table: ui.table, column: str) -> ui.element:
    """Return the cell of a column in every row, to be filled."""
    with table.add_slot(f"body-cell-{column}"):
        return table.cell(column)


def _bound(tag: str, **attributes: str) -> ui.element:
    """Put an element into a cell; its attributes are JavaScript of the row, and none is read as HTML."""
    element = ui.element(tag)
    element.props.update({f":{name}": value for name, value in attributes.items()})
    return element


def _column(name: str, *, number: bool = False, wrap: bool = False) -> dict[str, Any]:
    side = {"align": "right", "classes": "number"} if number else {"align": "left"}
    if wrap:
        side["classes"] = "wrap"
    return {"name": name, "label": name, "field": name, **side}


def _incident_row(fleet: Fleet, number: int, incident: Incident) -> dict[str, Any]:
    return {
        "id": number,
        "start": f"{from_instant(incident.start):%-d %b %Y %H:%M}",
        "length": describe_length(timedelta(microseconds=incident.end - incident.start)),
        "sensors": len(incident.sensors),
        "score": f"{incident.peak_score:,.1f}",
        "strongest first": ", ".join(fleet.sensors[position].name for position in incident.sensors[:4]),
    }
