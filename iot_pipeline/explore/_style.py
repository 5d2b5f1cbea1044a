"""Colours and markers, in the light and in the dark, and what all charts have of them."""

from dataclasses import dataclass
from typing import Any

from iot_pipeline.kinds import COLOURS

Option = dict[str, Any]
"""Options of ECharts are plain dicts."""

SYMBOLS = {
    "spike": "circle",
    "burst": "triangle",
    "level_shift": "rect",
    "stuck": "diamond",
    "drift": "arrow",
    "variance": "roundRect",
    "gap": "pin",
}
"""Markers of the kinds of anomalies, as ECharts calls them."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of the charts.

    Attributes:
        ink: Text.
        soft: Text that may be overlooked.
        line: Grid lines.
        back: The background.
        tile: The background of what lies on top.
        readings: A single sensor's readings.
        model: Models.
        traces: Several sensors' readings.
        heat: Scores, from low to high.
        kinds: Kinds of anomalies.
    """

    ink: str
    soft: str
    line: str
    back: str
    tile: str
    readings: str
    model: str
    traces: tuple[str, ...]
    heat: tuple[str, ...]
    kinds: dict[str, str]

    def kind(self, name: str) -> str:
        """Return the colour of a kind of anomaly."""
        return self.kinds.get(name, "#AA4499")

    @property
    def selection(self) -> dict[str, str]:
        """The style of a range that somebody selects."""
        return {"color": f"{self.model}33", "borderColor": self.model}

    def options(self) -> Option:
        """Return what all charts have; a new one each time, to be added to."""
        return {
            "animation": False,
            "backgroundColor": "transparent",
            "textStyle": {"fontFamily": "inherit", "color": self.ink},
            "tooltip": {
                "confine": True,
                "backgroundColor": self.tile,
                "borderColor": self.line,
                "textStyle": {"color": self.ink, "fontSize": 12},
            },
            # Dragging selects a range, as the toolbox's tool does; the tool itself is out of sight.
            "toolbox": {
                "itemSize": 0,
                "showTitle": False,
                "feature": {"dataZoom": {"yAxisIndex": False, "brushStyle": self.selection}},
            },
            "series": [],
        }


LIGHT = Palette(
    ink="#1d2530",
    soft="#566171",
    line="#e3e7ec",
    back="#ffffff",
    tile="#ffffff",
    readings="#9aa5b1",
    model="#0072B2",
    traces=("#5b6b7d", "#a0622d", "#4a7a4a", "#7b5ea7", "#a04a5e", "#3b7f8c"),
    heat=("#f6d7a7", "#f0a35e", "#d9573b", "#8c1d40"),
    kinds=COLOURS,
)
DARK = Palette(
    ink="#e4e8ed",
    soft="#a3aebb",
    line="#2c343d",
    back="#14181d",
    tile="#1d232a",
    readings="#77828f",
    model="#4aa8f0",
    traces=("#9fb0c3", "#d79a66", "#86b986", "#b59be0", "#dc8a9c", "#7cc0cc"),
    heat=("#5a3d2a", "#a8622f", "#e08a3c", "#ffd27a"),
    kinds={**COLOURS, "stuck": "#ffffff", "spike": "#ff7f2a", "drift": "#2cc99b", "gap": "#d1ad4c"},
)
