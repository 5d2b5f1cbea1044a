"""The bar at the top: the range that is shown, to be read and typed, and buttons."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from iot_pipeline.berlin import from_instant
from iot_pipeline.warehouse.query import read_moment

_KEYS = {
    "/": "search the sensors",
    "Enter, Space": "open a sensor, compare it with what is shown",
    "+ -": "zoom in and out",
    "← →": "go to earlier and later readings",
    "n p": "the next and the previous event",
    "0": "all readings",
    "s": "scale to the bulk of the readings; the others lie at the edge",
    "Backspace": "the view before",
    "?": "this list",
}


@dataclass(frozen=True, slots=True)
class Action:
    """What a button does: the name of its icon among Material's, a hint in words, and what a click calls."""

    icon: str
    hint: str
    run: Callable[[], Any]


class Toolbar:
    """The bar, with fields for Berlin's time."""

    def __init__(
        self,
        drawer: ui.left_drawer,
        actions: Sequence[Action],
        *,
        scale: Action,
        on_range: Callable[[int, int], Awaitable[None]],
    ) -> None:
        """Put it at the top of the page that is being built; the first button stays pressed or not."""
        self._on_range = on_range
        with ui.header().classes("bar"):
            ui.button(icon="menu", on_click=drawer.toggle).props('flat dense aria-label="sensors"')
            ui.label("iot_pipeline").classes("title wide")
            self._fields = [
                ui.input(label).props("dense outlined").classes("time").on("keydown.enter", self._typed, [])
                for label in ("from", "to")
            ]
            ui.label("Europe/Berlin").classes("soft wide")
            ui.element("div").classes("space")
            self._scale, *_ = [_button(action) for action in (scale, *actions)]

    def show(self, start: int, end: int, *, bulk: bool) -> None:
        """Show a range, in microseconds since the epoch, and whether it is scaled to the bulk."""
        self._scale.props(f"aria-pressed={json.dumps(bulk)}")
        for field, instant in zip(self._fields, (start, end), strict=True):
            field.set_value(f"{from_instant(instant):%Y-%m-%d %H:%M}")

    async def _typed(self) -> None:
        try:
            start, end = (read_moment(str(field.value)) for field in self._fields)
        except ValueError as error:
            ui.notify(str(error), type="warning")
            return
        if start >= end:
            ui.notify("the start is not before the end", type="warning")
            return
        await self._on_range(start, end)


def _button(action: Action) -> ui.button:
    button = ui.button(icon=action.icon, on_click=action.run)
    with button.props(f'flat dense aria-label="{action.hint}"'):
        ui.tooltip(action.hint)
    return button


def show_keys() -> None:
    """Show what the keyboard does."""
    with ui.dialog(value=True), ui.card(), ui.element("dl").classes("keys"):
        for key, what in _KEYS.items():
            with ui.element("dt"):
                ui.label(key)
            with ui.element("dd"):
                ui.label(what)
