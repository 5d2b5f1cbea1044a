"""The report: one page of HTML about every sensor's model and anomalies, that needs nothing but itself.

Puts frames and pictures on a page; it neither reads the warehouse nor draws.
"""

import base64
import html
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from iot_pipeline.clock import BERLIN

_TIME = "%Y-%m-%d %H:%M"
_SEVERITY = (
    "A score is in standard deviations of the noise. An event scores as its highest reading; "
    "a sensor is as severe as its events' scores add up to."
)
_GAP = "A gap stands at the reading that ends it."
_STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2530; --soft: #5d6877; --line: #dfe3e8; --back: #fff; --tile: #f4f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ed; --soft: #97a2b0; --line: #333b45; --back: #14181d; --tile: #1d232a }
}
body { margin: 2rem auto; max-width: 92rem; padding: 0 1.5rem; color: var(--ink); background: var(--back);
  font: 15px/1.5 system-ui, sans-serif }
h1 { margin-bottom: 0 }
h2 { margin: 2.5rem 0 .5rem }
p, figcaption { color: var(--soft); max-width: 60rem }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 }
dl div { flex: 1; min-width: 8rem; padding: .6rem 1rem; border-radius: .5rem; background: var(--tile) }
dt { color: var(--soft); font-size: .85em; white-space: nowrap }
dd { margin: 0; font-size: 1.6em; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9em }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 600; white-space: nowrap }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
figure { margin: 1.5rem 0 2.5rem; max-width: 76rem }
img { width: 100%; border-radius: .5rem; background: #fff }
"""


def render_report(
    anomalies: pd.DataFrame,
    sensor_models: pd.DataFrame,
    *,
    picture: Callable[[str], bytes],
    created: datetime,
    most_pictures: int = 12,
    most_events: int = 500,
) -> str:
    """Render the page.

    Args:
        anomalies: One row per flagged reading: sensor_name, timestamp (with a time zone), sensor_value,
            expected_value, score, kind, event_id (unique within a sensor).
        sensor_models: One row per sensor: sensor_name, model, breakpoints (a sequence of times), noise_sd,
            n_points, n_anomalies, n_events, reasoning.
        picture: Gives a sensor's picture as PNG; called for the most severe sensors only.
        created: The time to be named as the report's, with a time zone.
        most_pictures: How many sensors are shown in pictures.
        most_events: How many events are listed, those of the highest score.

    Returns:
        A complete HTML document; all times in it are Europe/Berlin, all pictures are part of it.
    """
    events = _events(anomalies)
    severity = sensor_models["sensor_name"].map(events.groupby("sensor_name")["score"].sum()).fillna(0.0)
    sensors = sensor_models.assign(severity=severity.astype(float))
    sensors = sensors.sort_values(["severity", "sensor_name"], ascending=[False, True])
    worst = sensors[sensors["n_anomalies"] > 0].head(most_pictures)
    listed = events.head(most_events)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Sensor anomalies</title><style>{_STYLE}</style></head><body>",
            "<h1>Sensor anomalies</h1>",
            f"<p>Created {created.astimezone(BERLIN):{_TIME}}. All times are Europe/Berlin.</p>",
            _summary(sensors, events),
            _table(_kinds(events)),
            "<h2>Most severe sensors</h2>",
            f"<p>{_SEVERITY if len(worst) else 'Nothing was flagged.'}</p>",
            *(_figure(sensor, picture) for sensor in worst.to_dict("records")),
            "<h2>All sensors</h2>",
            _table(_sensors(sensors)),
            "<h2>Events</h2>",
            f"<p>{len(listed):,} of {len(events):,}, the highest scores first. {_GAP}</p>",
            _table(listed),
            "</body></html>\n",
        ]
    )


def _events(anomalies: pd.DataFrame) -> pd.DataFrame:
    """Fold flagged readings into events, the highest score first."""
    readings = anomalies.assign(
        timestamp=anomalies["timestamp"].dt.tz_convert(BERLIN),
        mean_deviation=anomalies["sensor_value"] - anomalies["expected_value"],
    )
    events = readings.groupby(["sensor_name", "event_id", "kind"], as_index=False).agg(
        start=("timestamp", "min"),
        end=("timestamp", "max"),
        readings=("timestamp", "size"),
        mean_deviation=("mean_deviation", "mean"),
        score=("score", "max"),
    )
    events = events.sort_values(["score", "sensor_name", "start"], ascending=[False, True, True])
    return events.drop(columns="event_id")


def _summary(sensors: pd.DataFrame, events: pd.DataFrame) -> str:
    readings, flagged = int(sensors["n_points"].sum()), int(sensors["n_anomalies"].sum())
    figures = {
        "sensors": f"{len(sensors):,}",
        "without anomalies": f"{int((sensors['n_anomalies'] == 0).sum()):,}",
        "readings": f"{readings:,}",
        "flagged readings": f"{flagged:,}",
        "share flagged": f"{flagged / max(readings, 1):.2%}",
        "events": f"{len(events):,}",
    }
    tiles = (f"<div><dt>{label}</dt><dd>{figure}</dd></div>" for label, figure in figures.items())
    return f"<dl>{''.join(tiles)}</dl>"


def _kinds(events: pd.DataFrame) -> pd.DataFrame:
    return events.groupby("kind", as_index=False).agg(
        events=("kind", "size"),
        readings=("readings", "sum"),
        sensors=("sensor_name", "nunique"),
        first=("start", "min"),
        last=("end", "max"),
    )


def _sensors(sensors: pd.DataFrame) -> pd.DataFrame:
    titles = {"n_events": "events", "n_anomalies": "anomalies", "n_points": "readings"}
    columns = ["sensor_name", "severity", *titles, "noise_sd", "model", "breakpoints", "reasoning"]
    return sensors.assign(breakpoints=sensors["breakpoints"].map(_dates))[columns].rename(columns=titles)


def _dates(times: Iterable[Any]) -> str:
    berlin = pd.to_datetime(list(times), utc=True).tz_convert(BERLIN)
    return ", ".join(f"{time:%Y-%m-%d}" for time in berlin)


def _figure(sensor: dict[Hashable, Any], picture: Callable[[str], bytes]) -> str:
    name = html.escape(sensor["sensor_name"])
    image = base64.b64encode(picture(sensor["sensor_name"])).decode()
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{image}">'
        f"<figcaption><b>{name}</b>: {html.escape(sensor['reasoning'])}</figcaption></figure>"
    )


def _table(frame: pd.DataFrame) -> str:
    kinds = ["number" if is_numeric_dtype(dtype) else "text" for dtype in frame.dtypes]
    titles = (column.replace("_", " ") for column in frame.columns)
    head = _row("th", titles, kinds)
    body = "".join(_row("td", map(_text, row), kinds) for row in frame.itertuples(index=False))
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _row(tag: str, texts: Iterable[str], kinds: list[str]) -> str:
    cells = (
        f'<{tag} class="{kind}">{html.escape(text)}</{tag}>' for text, kind in zip(texts, kinds, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _text(value: object) -> str:
    match value:
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}"
        case datetime():
            return f"{value:{_TIME}}"
        case _:
            return str(value)
