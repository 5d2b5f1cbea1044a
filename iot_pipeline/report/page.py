"""The report: one self-contained HTML page about every sensor's model and anomalies, to be sent by mail.

Only renders data frames and pictures that are passed in. Its few lines of script search and sort the tables;
without them, as in a mail client, all is there in the order written.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from pandas.api.types import is_numeric_dtype

from iot_pipeline.berlin import BERLIN, describe_length
from iot_pipeline.kinds import KINDS, title
from iot_pipeline.report.sparkline import HEIGHT, WIDTH, Sparkline

_NOTHING = "-"
_MOST_NEW = 100
_LEAST, _MOST = 1e-4, 1e7
"""Between these, numbers are easier to read without an exponent."""
_TITLES = {
    "sensor_name": "sensor",
    "n_events": "events",
    "n_anomalies": "flagged",
    "n_points": "readings",
    "n_readings": "flagged",
    "mean_residual": "mean deviation",
    "n_sensors": "sensors",
    "strongest_sensor": "strongest",
}


@dataclass(frozen=True, slots=True)
class LastReport:
    """What the report before this one told of.

    Attributes:
        created: When it was written, with a time zone.
        event_ids: The events it had.
    """

    created: datetime
    event_ids: frozenset[str]


def render_report(
    sensors: pd.DataFrame,
    events: pd.DataFrame,
    incidents: pd.DataFrame,
    *,
    source: str,
    warehouse: str,
    created: datetime,
    last: LastReport | None,
    pictures: Mapping[str, bytes],
    sparklines: Mapping[str, Sparkline],
    failures: Mapping[str, str],
    unjudged: Sequence[str] = (),
    most_events: int = 1000,
) -> str:
    """Render the page.

    Args:
        sensors: One row per sensor, the most severe first, with the columns of ``rank_sensors``: sensor_name,
            severity, n_events, n_anomalies, n_points, noise_sd, model, breakpoints (a sequence of times),
            reasoning.
        events: One row per event, with the columns of ``find_events``: sensor_name, kind, start, end (with a
            time zone), duration_h, n_readings, peak_score, mean_residual (NaN if not meaningful), annotation,
            event_id. False alarms are listed but not counted.
        incidents: One row per incident of several sensors, with columns of the view ``incidents``: start,
            end, n_sensors, kinds, strongest_sensor, peak_score.
        source: The directory or URL of the source.
        warehouse: The directory or URL of the warehouse.
        created: The time shown as the report's, with a time zone.
        last: The report before this one; None for the first.
        pictures: PNG pictures by the names of the sensors to show.
        sparklines: Small pictures by the names of sensors.
        failures: Error messages by the names of the sensors that could not be drawn.
        unjudged: Names of the sensors that have no model.
        most_events: The maximum number of events listed; the newest.

    Returns:
        A complete HTML document with embedded pictures; all times are Europe/Berlin.
    """
    events = events.sort_values(["start", "peak_score", "sensor_name"], ascending=[False, False, True])
    said = events["annotation"].fillna("").map(title)
    events = events.assign(kind=events["kind"].map(title), annotation=said)
    counted = events[events["annotation"] != title("false_alarm")]
    new = counted[~counted["event_id"].isin(last.event_ids if last else [])]
    listed = events.head(most_events)
    shown = sensors[sensors["sensor_name"].isin([*pictures, *failures])]
    # Not at import: PackageLoader accesses the disk.
    page = Environment(
        loader=PackageLoader("iot_pipeline.report"), autoescape=True, undefined=StrictUndefined
    ).get_template("report.html")
    return page.render(
        width=WIDTH,
        height=HEIGHT,
        source=source,
        warehouse=warehouse,
        created=_text(created),
        figures=_figures(sensors, counted),
        last=_text(last.created) if last else None,
        new=_table(_events(new.head(_MOST_NEW))),
        n_new=f"{len(new):,}",
        incidents=_table(_incidents(incidents)),
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
        sensors=_table(_sensors(sensors, sparklines)),
        unjudged=unjudged,
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


def _incidents(incidents: pd.DataFrame) -> pd.DataFrame:
    incidents = incidents.sort_values(["start", "n_sensors"], ascending=False)
    return incidents.assign(
        length=incidents["end"] - incidents["start"],
        kinds=[", ".join(map(title, kinds)) for kinds in incidents["kinds"]],
    )[["start", "end", "length", "n_sensors", "kinds", "strongest_sensor", "peak_score"]]


def _sensors(sensors: pd.DataFrame, sparklines: Mapping[str, Sparkline]) -> pd.DataFrame:
    columns = ["sensor_name", "severity", "shape", "n_events", "n_anomalies", "n_points", "noise_sd"]
    columns += ["model", "breakpoints", "reasoning"]
    return sensors.assign(
        shape=sensors["sensor_name"].map(sparklines.get),
        breakpoints=sensors["breakpoints"].map(_dates),
    )[columns]


def _events(events: pd.DataFrame) -> pd.DataFrame:
    columns = ["start", "end", "length", "sensor_name", "kind", "n_readings", "mean_residual", "peak_score"]
    columns += ["annotation"] if events["annotation"].any() else []
    return events.assign(length=[timedelta(hours=hours) for hours in events["duration_h"]])[columns]


def _dates(times: Iterable[Any]) -> str:
    berlin = pd.to_datetime(list(times), utc=True).tz_convert(BERLIN)
    return ", ".join(f"{time:%Y-%m-%d}" for time in berlin)


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a cell of a table shows: a text, which may be sorted by a number, or a sparkline."""

    text: str
    key: float | None = None
    sparkline: Sparkline | None = None


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame's header and rows as cells."""
    styles = [_style(str(name), dtype) for name, dtype in frame.dtypes.items()]
    titles = [_TITLES.get(column, column.replace("_", " ")) for column in frame.columns]
    return {
        "head": list(zip(styles, titles, strict=True)),
        "rows": [list(map(_cell, row)) for row in frame.itertuples(index=False)],
    }


def _cell(value: object) -> _Cell:
    match value:
        case timedelta():
            return _Cell(describe_length(value) or _NOTHING, key=value.total_seconds())
        case Sparkline():
            return _Cell("", sparkline=value)
        case _:
            return _Cell(_text(value))


def _style(column: str, dtype: Any) -> str:
    if column in {"sensor_name", "strongest_sensor", "kind", "length"}:
        return "name"
    if is_numeric_dtype(dtype):
        return "number"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "time"
    return "prose" if column == "reasoning" else "text"


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case int():
            return f"{value:,}"
        case float():
            return _number(value)
        case datetime():
            return f"{value.astimezone(BERLIN):%Y-%m-%d %H:%M}"
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
