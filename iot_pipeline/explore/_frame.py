"""The chart of some sensors without its readings: panels, axes, tooltip, and what zooms.

A key that begins with a colon holds JavaScript, which NiceGUI evaluates in the browser; none of it is made
from data.
"""

import json
from collections.abc import Sequence

import numpy as np

from iot_pipeline.explore._berlin_axis import ticks
from iot_pipeline.explore._style import Option, Palette
from iot_pipeline.thinning import compress

_ABOVE, _BELOW, _BETWEEN, _RESIDUALS = 58, 62, 34, 110
_RESIDUAL_TICKS = (3, 10, 30, 100, 1000, 10_000)
_LABEL_HEIGHT = 13

_BERLIN_TIME = """p => new Intl.DateTimeFormat('en-GB', {timeZone: 'Europe/Berlin', weekday: 'short',
    day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', timeZoneName: 'short'
}).format(p.value)"""
_NUMBER = "v => v === null || v === undefined ? '' : Number((+v).toPrecision(6)).toLocaleString('en-GB')"


def height_of(n_traces: int) -> int:
    """Return how many pixels high the chart of some sensors is."""
    return _ABOVE + n_traces * (_panel(n_traces) + _BETWEEN) + _RESIDUALS + _BELOW


def frame(titles: Sequence[str], palette: Palette, *, narrow: bool) -> Option:
    """Return all that does not change while somebody zooms: panels, axes, tooltip.

    Args:
        titles: What stands above the sensors' panels; their residuals share the last one.
        palette: Colours.
        narrow: Whether it is as narrow as a telephone.
    """
    n = len(titles)
    panel = _panel(n)
    tops = [_ABOVE + i * (panel + _BETWEEN) for i in range(n + 1)]
    left, right, size = (56, 18, 10) if narrow else (72, 16, 12)
    every = list(range(n + 1))
    titles = [*titles, "residuals in standard deviations of the noise"]
    ticks_of_residuals = [0, *_RESIDUAL_TICKS, *(-tick for tick in _RESIDUAL_TICKS)]
    places = compress(np.array(ticks_of_residuals, np.float64)).tolist()
    texts = {f"{place:.3f}": f"{tick:,}" for place, tick in zip(places, ticks_of_residuals, strict=True)}
    x_axis = {
        "type": "value",
        "splitLine": {"show": False},
        "axisLine": {"onZero": False, "lineStyle": {"color": palette.line}},
        "axisPointer": {"label": {":formatter": _BERLIN_TIME}},
    }
    y_axis: Option = {
        "type": "value",
        "scale": True,
        "splitNumber": 4,
        "axisLine": {"onZero": False},
        "splitLine": {"lineStyle": {"color": palette.line}},
        "axisLabel": {"color": palette.soft, "fontSize": size, "hideOverlap": True},
        "axisPointer": {"show": False},
    }
    options = palette.options()
    options["tooltip"] |= {"trigger": "axis", ":valueFormatter": _NUMBER}
    return options | {
        "title": [
            {
                "text": title,
                "left": left,
                "top": top - 22,
                "textStyle": {
                    "fontSize": 12,
                    "fontWeight": "bold" if i < n else "normal",
                    "color": palette.ink,
                },
            }
            for i, (title, top) in enumerate(zip(titles, tops, strict=True))
        ],
        "grid": [
            {
                "left": left,
                "right": right,
                "top": top,
                "height": panel if i < n else _RESIDUALS - 12,
                "outerBoundsMode": "none",  # the panels' edges stay one below the other
            }
            for i, top in enumerate(tops)
        ],
        "xAxis": [
            {
                **x_axis,
                "gridIndex": i,
                "axisLabel": {"show": i == n, "color": palette.soft, "hideOverlap": True},
            }
            for i in every
        ],
        "yAxis": [
            *({**y_axis, "gridIndex": i} for i in range(n)),
            {
                **y_axis,
                "gridIndex": n,
                "scale": False,
                "splitLine": {"show": False},
                "axisLabel": {
                    **y_axis["axisLabel"],
                    ":formatter": f"v => ({json.dumps(texts)})[v.toFixed(3)]",
                },
            },
        ],
        "legend": {
            "type": "scroll",
            "top": 4,
            "left": left - 8,
            "right": right,
            "itemWidth": 16,
            "itemHeight": 9,
            "textStyle": {"color": palette.soft},
            "pageTextStyle": {"color": palette.soft},
            "pageIconColor": palette.soft,
        },
        "axisPointer": {"link": [{"xAxisIndex": "all"}], "lineStyle": {"color": palette.soft}},
        "dataZoom": [
            {
                "id": "inside",
                "type": "inside",
                "xAxisIndex": every,
                "filterMode": "none",
                "moveOnMouseMove": "shift",
                "minSpan": 0,
            },
            {
                "id": "slider",
                "type": "slider",
                "xAxisIndex": every,
                "filterMode": "none",
                "height": 16,
                "bottom": 8,
                "left": left,
                "right": right,
                "showDataShadow": False,
                "showDetail": False,
                "brushSelect": False,
                "borderColor": palette.line,
                "fillerColor": palette.selection["color"],
                "moveHandleSize": 0,
            },
        ],
    }


def place_of(start: int, end: int) -> list[Option]:
    """Return where the two ``dataZoom`` components stand when a range is shown."""
    place = {"startValue": start / 1000, "endValue": end / 1000}
    return [{"id": "inside", **place}, {"id": "slider", **place}]


def residual_ticks(largest: float) -> Option:
    """Return where the axis of residuals has ticks, as many as it has room for.

    Args:
        largest: The greatest place on the axis that something is drawn at, see `compress`.
    """
    height = max(largest, 1.0) * 2.2 * _LABEL_HEIGHT / _RESIDUALS
    chosen = [0.0]
    for place in compress(np.array(_RESIDUAL_TICKS, np.float64)).tolist():
        if place - chosen[-1] >= height and place <= 1.5 * largest:
            chosen.append(place)
    places = [*(-place for place in reversed(chosen[1:])), *chosen]
    return {"axisTick": {"customValues": places}, "axisLabel": {"customValues": places}}


def time_axes(extent: tuple[int, int], shown: tuple[int, int], n_traces: int, *, most: int) -> str:
    """Return JavaScript of an option: from when to when the time axes go, their ticks, and what these say."""
    labels = {instant // 1000: text for instant, text in ticks(*shown, most=most).items()}
    places = json.dumps(list(labels))
    axis = (
        f"{{min: {extent[0] / 1000}, max: {extent[1] / 1000},"
        f" axisTick: {{customValues: {places}}}, axisLabel: {{customValues: {places},"
        f" formatter: v => ({json.dumps(labels)})[v]}}}}"
    )
    return f"{{xAxis: [{', '.join([axis] * (n_traces + 1))}]}}"


def _panel(n_traces: int) -> int:
    return 300 if n_traces == 1 else 160
