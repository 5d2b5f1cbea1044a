"""A digest in words: the HTML that mail shows.

Apprise makes Markdown and text of it, where a service wants those. What comes from data is text, never
markup.
"""

from datetime import datetime, timedelta
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from iot_pipeline.alerts.digest import Digest, Told
from iot_pipeline.alerts.events import Event
from iot_pipeline.berlin import describe_length
from iot_pipeline.kinds import counted, in_words, title

MOST_INCIDENTS = 8
MOST_EVENTS = 4
"""Of an incident."""
_ONE_SIDED = ("spike", "burst", "level_shift", "drift")
"""The kinds whose readings lie on one side of what was expected."""
_MARGIN = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def render_digest(digest: Digest, *, warehouse: str, explore_url: str = "") -> str:
    """Put a digest into HTML.

    Args:
        digest: What there is to tell.
        warehouse: The directory or URL of the warehouse that it is about.
        explore_url: Where the page for looking at sensors is; empty for no links.
    """
    environment = Environment(
        loader=PackageLoader("iot_pipeline.alerts"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "describe": describe_event,
        "span": describe_span,
        "title": title,
        "in_words": in_words,
        "link": link_to,
    }
    return environment.get_template("digest.html").render(
        digest=digest,
        warehouse=warehouse,
        explore_url=explore_url,
        most_incidents=MOST_INCIDENTS,
        most_events=MOST_EVENTS,
    )


def window_of(event: Event | Told) -> tuple[datetime, datetime]:
    """Return the times to look at: a day more than the event on both sides."""
    return event.start - _MARGIN, event.end + _MARGIN


def link_to(event: Event | Told, explore_url: str) -> str:
    """Return the address of the page that shows an event."""
    start, end = (moment.isoformat(timespec="minutes") for moment in window_of(event))
    return f"{explore_url}/?{urlencode({'sensor': event.sensor_name, 'start': start, 'end': end})}"


def describe_event(event: Event) -> str:
    """Say what was seen, and when."""
    when = describe_span(event.start, event.end)
    if event.kind == "gap":
        return f"no readings for {describe_length(event.end - event.start)}, {when}"
    side = (" too high" if (event.mean_residual or 0) > 0 else " too low") if event.kind in _ONE_SIDED else ""
    readings = counted(event.n_readings, "reading")
    return (
        f"{title(event.kind)}, {when}{', and goes on' if event.ongoing else ''}:"
        f" {readings}{side}, as rare as a reading at {event.peak_score:.1f} sd"
    )


def describe_span(start: datetime, end: datetime) -> str:
    """Write a time or a span of time, in the zone of the moments."""
    if end - start < _SECOND:
        return f"{start:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} to {end:{'%H:%M' if start.date() == end.date() else '%Y-%m-%d %H:%M'}}"
