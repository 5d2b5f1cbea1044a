"""Telling people of a run: compose once, send to all who don't have it yet, record who has it."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from iot_pipeline.alerts.digest import Digest, Run, compose, headline
from iot_pipeline.alerts.events import Findings, read_events
from iot_pipeline.alerts.message import render_digest, window_of
from iot_pipeline.alerts.outbox import (
    Message,
    Messages,
    Picture,
    change_outbox,
    mark_delivered,
    read_outbox,
)
from iot_pipeline.alerts.services import HEARTBEAT, call_heartbeat, check_heartbeat, open_services
from iot_pipeline.errors import (
    ConfigurationError,
    DamagedTableError,
    IotPipelineError,
    WarehouseNotReadyError,
)
from iot_pipeline.settings import get_settings
from iot_pipeline.store import one_line
from iot_pipeline.warehouse import Warehouse, open_warehouse
from iot_pipeline.warehouse.cleanup import remove_old_versions
from iot_pipeline.warehouse.query import connect
from iot_pipeline.warehouse.views import readable_errors

logger = logging.getLogger(__name__)

Draw = Callable[[str, datetime, datetime], bytes]
"""Draws a sensor in a range of time, as a PNG picture."""
_PAUSES = (1, 4)
"""Seconds before recording once more what was sent."""
_unrecorded: dict[tuple[str, str], tuple[str, ...]] = {}
"""Who was told of a run while the warehouse was away, by its URL and the run."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """How far people have been told of a run.

    Attributes:
        title: The message's title; empty where there was nothing to tell.
        sent: The labels of those who have taken it now.
        waiting: Those who have not, by key.
    """

    title: str
    sent: tuple[str, ...]
    waiting: dict[str, str]


def announce(
    run: Run,
    *,
    draw: Draw | None = None,
    warehouse: str | Path | None = None,
    not_to: Collection[str] = (),
) -> Announcement:
    """Tell people of a run, those who have not been told yet. May be called again until nobody waits.

    Args:
        run: How the run ended.
        draw: Draws the picture of the strongest sensor.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.
        not_to: Keys of services that don't answer, and are not to be tried now.

    Raises:
        ConfigurationError: A setting can't be used.
        WarehouseBusyError: Somebody else is doing the same.
        WarehouseError: The warehouse can't be read or written.
    """
    settings = get_settings()
    services = open_services(settings.alert_urls)
    check_heartbeat(settings.heartbeat_url)
    opened = open_warehouse(warehouse)
    with opened.writing("alerts"):
        message = _find(read_outbox(opened), run.run_id) or _compose(
            run, opened, _read_findings(warehouse, required=run.succeeded)
        )
        takers = {service.key: service.label for service in services} if message.title else {}
        if run.succeeded and settings.heartbeat_url:
            takers[HEARTBEAT] = "the heartbeat"
        unrecorded = _unrecorded.get((opened.url, run.run_id), ())
        delivered = {*message.delivered, *unrecorded}
        # Who was added since everybody has been told is not told of it.
        due = {key: label for key, label in takers.items() if key not in delivered and not message.sent_at}
        to = due.keys() - set(not_to)
        picture = _drawing(message.picture, draw)
        sent = [
            service.key
            for service in services
            if service.key in to and service.send(message.title, message.html, picture)
        ]
        if HEARTBEAT in to and call_heartbeat(settings.heartbeat_url):
            sent.append(HEARTBEAT)
        waiting = {key: label for key, label in due.items() if key not in sent}
        if sent or unrecorded or (not waiting and message.sent_at is None):
            _unrecorded[opened.url, run.run_id] = (*unrecorded, *sent)
            _record(opened, run.run_id, (*unrecorded, *sent), None if waiting else datetime.now(UTC))
            del _unrecorded[opened.url, run.run_id]
    return Announcement(message.title, tuple(due[key] for key in sent), waiting)


def send_test(*, draw: Draw | None = None, warehouse: str | Path | None = None) -> Announcement:
    """Send everybody a message that says that it is a test, and record nothing.

    Args:
        draw: Draws the picture of a sensor.
        warehouse: The warehouse's directory or S3 URL; by default the setting's.

    Raises:
        ConfigurationError: Nobody is to be told, or a setting can't be used.
    """
    settings = get_settings()
    services = open_services(settings.alert_urls)
    if not services:
        raise ConfigurationError(
            "IOT_ALERT_URLS is not set: set it to URLs such as mailto://user:password@example.org,"
            " see https://appriseit.com"
        )
    findings = _read_findings(warehouse, required=False)
    digest = Digest(Run("00000000", succeeded=True), tuple((event,) for event in findings.events[:1]))
    html = render_digest(digest, warehouse=open_warehouse(warehouse).url, explore_url=settings.explore_url)
    intro = "<p>This is a test of the alerts. The strongest of the latest events stands for a new one.</p>"
    title, picture = "Sensors: a test", _drawing(_picture_of(digest), draw)
    sent = [service for service in services if service.send(title, intro + html, picture)]
    waiting = {service.key: service.label for service in services if service not in sent}
    return Announcement(title, tuple(service.label for service in sent), waiting)


def _find(messages: Messages, run_id: str) -> Message | None:
    return next((message for message in messages if message.run_id == run_id), None)


def _compose(run: Run, warehouse: Warehouse, findings: Findings) -> Message:
    """Put the message about a run into the outbox."""
    settings = get_settings()

    def add(messages: Messages) -> Messages:
        if _find(messages, run.run_id):
            return messages
        known = messages[-1].memory if messages else None
        digest, memory = compose(run, findings, known, min_score=settings.alert_min_score)
        title = html = ""
        if digest.is_news and settings.alert_urls:
            title = headline(digest)
            html = render_digest(digest, warehouse=warehouse.url, explore_url=settings.explore_url)
        picture = _picture_of(digest)
        message = Message(run.run_id, title, html, picture, datetime.now(UTC), memory=memory)
        return (*messages, message)

    message = _find(change_outbox(warehouse, add), run.run_id)
    assert message  # noqa: S101 - it was added
    remove_old_versions(warehouse.alerts)
    return message


def _picture_of(digest: Digest) -> Picture | None:
    if not digest.incidents:
        return None
    strongest = digest.incidents[0][0]
    return Picture(strongest.sensor_name, *window_of(strongest))


def _read_findings(warehouse: str | Path | None, *, required: bool) -> Findings:
    """Read what was found; nothing from tables that can't be read, unless it is required.

    A run that failed may be the one that left them so, and people have to hear of that.
    """
    try:
        with connect(warehouse) as connection, readable_errors():
            return read_events(connection)
    except WarehouseNotReadyError:
        return Findings()
    except DamagedTableError:
        if required:
            raise
        return Findings()


def _drawing(shown: Picture | None, draw: Draw | None) -> Callable[[], bytes | None]:
    """Return what draws a message's picture, at most once."""

    @cache
    def picture() -> bytes | None:
        if not (draw and shown):
            return None
        try:
            return draw(shown.sensor_name, shown.start, shown.end)
        except Exception as error:  # noqa: BLE001 - a message without its picture is better than none
            logger.warning("can't draw %s: %s", shown.sensor_name, error)
            return None

    return picture


def _record(warehouse: Warehouse, run_id: str, sent: tuple[str, ...], sent_at: datetime | None) -> None:
    """Record who was told; where the warehouse is away, try again some seconds later."""

    def mark(messages: Messages) -> Messages:
        return tuple(
            mark_delivered(message, sent, sent_at) if message.run_id == run_id else message
            for message in messages
        )

    for pause in _PAUSES:
        try:
            change_outbox(warehouse, mark)
        except (IotPipelineError, OSError) as error:
            logger.warning("can't record who was told (%s): trying again", one_line(error))
            time.sleep(pause)
        else:
            return
    change_outbox(warehouse, mark)
