"""The fleet as a heat map: what ECharts is told to draw."""

import json
from collections.abc import Sequence

from iot_pipeline.berlin import from_instant
from iot_pipeline.explore._berlin_axis import ticks
from iot_pipeline.explore._fleet import Events, heat
from iot_pipeline.explore._style import Option, Palette
from iot_pipeline.thinning import IntArray

_LEAST, _MOST = 5, 50
"""Scores that have the first and the last colour."""
_BELOW = 64
_MOST_NAMES = 36


def height_of(n_sensors: int) -> int:
    """Return how many pixels high the heat map of some sensors is."""
    return _BELOW + min(max(18 * n_sensors, 60), 480)


def frame(palette: Palette, *, narrow: bool) -> Option:
    """Return all but the cells and the axes' labels."""
    label = {"color": palette.soft, "hideOverlap": True}
    axis = {
        "type": "category",
        "data": [],
        "axisTick": {"show": False},
        "axisLine": {"lineStyle": {"color": palette.line}},
    }
    return palette.options() | {
        "grid": {"left": 8 if narrow else 110, "right": 16, "top": 4, "bottom": 58},
        "xAxis": {**axis, "axisLabel": {**label, "interval": 0}},
        "yAxis": {
            **axis,
            "inverse": True,
            "axisLabel": {**label, "show": not narrow, "fontSize": 10, "width": 96, "overflow": "truncate"},
        },
        "visualMap": {
            "type": "continuous",
            "dimension": 2,
            "min": _LEAST,
            "max": _MOST,
            "orient": "horizontal",
            "left": "center",
            "bottom": 0,
            "itemWidth": 10,
            "itemHeight": 120,
            "text": [f"score {_MOST}+", f"{_LEAST}"],
            "textStyle": {"color": palette.soft},
            "inRange": {"color": list(palette.heat)},
        },
        "dataZoom": [{"id": "inside", "type": "inside", "xAxisIndex": 0, "filterMode": "none"}],
    }


def cells(
    events: Events, rows: IntArray, names: Sequence[str], start: int, end: int, *, bins: int
) -> tuple[str, Option]:
    """Return what the heat map shows of a range of time.

    Args:
        events: Of all sensors.
        rows: int64[n_sensors], the row that each sensor has.
        names: The sensors' names by row.
        start: Microseconds since the epoch.
        end: Likewise.
        bins: How many columns.

    Returns:
        JavaScript of an option: the labels of the time axis. And an option: the cells.
    """
    width = (end - start) / bins
    places = {int((instant - start) // width): text for instant, text in ticks(start, end, most=8).items()}
    labels = f"{{xAxis: {{axisLabel: {{formatter: (v, i) => ({json.dumps(places)})[i] || ''}}}}}}"
    moments = [f"{from_instant(round(start + i * width)):%a %-d %b %Y %H:%M %Z}" for i in range(bins)]
    series = {
        "type": "heatmap",
        "name": "strongest score",
        "dimensions": ["from", "sensor", "score"],
        "encode": {"x": 0, "y": 1, "value": 2, "tooltip": [0, 1, 2]},
        "data": heat(events, rows, start, end, bins).round(1),
        "progressive": 0,
        "emphasis": {"disabled": True},
    }
    return labels, {
        "xAxis": {"data": moments},
        "yAxis": {"data": list(names), "axisLabel": {"interval": len(names) // _MOST_NAMES}},
        "dataZoom": [{"id": "inside", "start": 0, "end": 100}],
        "series": [series],
    }
