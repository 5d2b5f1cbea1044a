"""The report: one self-contained HTML page about every sensor's model and anomalies.

Only renders data frames and pictures that are passed in.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from pandas.api.types import is_numeric_dtype

from iot_pipeline.berlin import BERLIN
from iot_pipeline.kinds import KINDS, title

_TIME = "%Y-%m-%d %H:%M"
_NOTHING = "-"
_LEAST, _MOST = 1e-4, 1e7
"""Between these, numbers are easier to read without an exponent."""
_TITLES = {
    "sensor_name": "sensor",
    "n_events": "events",
    "n_anomalies": "flagged",
    "n_points": "readings",
    "n_readings": "flagged",
    "mean_residual": "mean deviation",
}


def render_report(
    sensors: pd.DataFrame,
    events: pd.DataFrame,
    *,
    source: str,
    warehouse: str,
    created: datetime,
    pictures: Mapping[str, bytes],
    failures: Mapping[str, str],
    most_events: int = 500,
) -> str:
    """Render the page.

    Args:
        sensors: One row per sensor, the most severe first, with the columns of ``rank_sensors``: sensor_name,
            severity, n_events, n_anomalies, n_points, noise_sd, model, breakpoints (a sequence of times),
            reasoning.
        events: One row per event, with the columns of ``find_events``: sensor_name, kind, start, end (with a
            time zone), duration_h, n_readings, peak_score, mean_residual (NaN if not meaningful), annotation.
            False alarms are listed but not counted.
        source: The directory or URL of the source.
        warehouse: The directory or URL of the warehouse.
        created: The time shown as the report's, with a time zone.
        pictures: PNG pictures by the names of the sensors to show.
        failures: Error messages by the names of the sensors that could not be drawn.
        most_events: The maximum number of events listed; those with the highest scores.

    Returns:
        A complete HTML document with embedded pictures; all times are Europe/Berlin.
    """
    events = events.sort_values(["peak_score", "sensor_name", "start"], ascending=[False, True, True])
    events = events.assign(kind=events["kind"].map(title), annotation=events["annotation"].map(_said))
    counted = events[events["annotation"] != title("false_alarm")]
    listed = events.head(most_events)
    shown = sensors[sensors["sensor_name"].isin([*pictures, *failures])]
    # Not at import: PackageLoader accesses the disk.
    page = Environment(
        loader=PackageLoader("iot_pipeline.report"), autoescape=True, undefined=StrictUndefined
    ).get_template("report.html")
    return page.render(
        source=source,
        warehouse=warehouse,
        created=f"{created.astimezone(BERLIN):{_TIME}}",
        figures=_figures(sensors, counted),
        kinds=_table(_kinds(counted)),
        glossary={title(kind): text for kind, text in KINDS.items()},
        worst=[
            {
                "name": sensor["sensor_name"],
                "picture": base64.b64encode(pictures.get(sensor["sensor_name"], b"")).decode(),
                "failure": failures.get(sensor["sensor_name"]),
                "reasoning": sensor["reasoning"],
            }
            for sensor in shown.to_dict("records")
        ],
        sensors=_table(_sensors(sensors)),
        listed=f"{len(listed):,} of {len(events):,}",
        events=_table(_events(listed)),
    )


def _figures(sensors: pd.DataFrame, events: pd.DataFrame) -> dict[str, str]:
    readings, flagged = int(sensors["n_points"].sum()), int(sensors["n_anomalies"].sum())
    return {
        "sensors": f"{len(sensors):,}",
        "without anomalies": f"{int((sensors['n_anomalies'] == 0).sum()):,}",
        "readings": f"{readings:,}",
        "flagged readings": f"{flagged:,}",
        "share flagged": f"{flagged / max(readings, 1):.2%}",
        "events": f"{len(events):,}",
    }


def _kinds(events: pd.DataFrame) -> pd.DataFrame:
    return events.groupby("kind", as_index=False).agg(
        events=("kind", "size"),
        flagged=("n_readings", "sum"),
        sensors=("sensor_name", "nunique"),
        first=("start", "min"),
        last=("end", "max"),
    )


def _sensors(sensors: pd.DataFrame) -> pd.DataFrame:
    columns = ["sensor_name", "severity", "n_events", "n_anomalies", "n_points", "noise_sd", "model"]
    columns += ["breakpoints", "reasoning"]
    return sensors.assign(breakpoints=sensors["breakpoints"].map(_dates))[columns]


def _events(events: pd.DataFrame) -> pd.DataFrame:
    columns = ["sensor_name", "kind", "start", "end", "duration", "n_readings", "mean_residual", "peak_score"]
    columns += ["annotation"] if events["annotation"].any() else []
    return events.assign(duration=events["duration_h"].map(_duration))[columns]


def _said(annotation: object) -> str:
    return title(annotation) if isinstance(annotation, str) else ""


def _dates(times: Iterable[Any]) -> str:
    berlin = pd.to_datetime(list(times), utc=True).tz_convert(BERLIN)
    return "\n".join(f"{time:%Y-%m-%d}" for time in berlin)


def _duration(hours: float) -> str:
    """Format a duration, such as ``2 d 4 h``; ``-`` for a single moment."""
    minutes = round(hours * 60)
    days, rest = divmod(minutes, 24 * 60)
    parts = {"d": days, "h": rest // 60, "min": 0 if days else rest % 60}
    return " ".join(f"{count:,} {unit}" for unit, count in parts.items() if count) or _NOTHING


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame's header and rows as text, each cell with the style of its column."""
    kinds = [_style(str(name), dtype) for name, dtype in frame.dtypes.items()]
    titles = [_TITLES.get(column, column.replace("_", " ")) for column in frame.columns]
    return {
        "head": list(zip(kinds, titles, strict=True)),
        "rows": [list(zip(kinds, map(_text, row), strict=True)) for row in frame.itertuples(index=False)],
    }


def _style(column: str, dtype: Any) -> str:
    if is_numeric_dtype(dtype):
        return "number"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "time"
    return {"reasoning": "prose", "sensor_name": "name", "kind": "name", "duration": "name"}.get(
        column, "text"
    )


def _text(value: object) -> str:
    match value:
        case int():
            return f"{value:,}"
        case float():
            return _number(value)
        case datetime():
            return f"{value.astimezone(BERLIN):{_TIME}}"
        case _:
            return str(value)


def _number(value: float) -> str:
    """Format a number with four significant digits."""
    if math.isnan(value):
        return _NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and not _LEAST <= abs(value) < _MOST:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"  # noqa: PLR2004 - four digits
