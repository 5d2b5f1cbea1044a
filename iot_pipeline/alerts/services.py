"""Sending: Apprise, which knows mail, chats and webhooks by URL, and the heartbeat.

The URLs hold tokens. None of them may get into a log, an error or a table: services are named by their kind
and their place in the list, and what Apprise and its HTTP client log while they send is not kept.
"""

import http.client
import logging
import re
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from iot_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from apprise.plugins import NotifyBase

HEARTBEAT = "heartbeat"
_TIMEOUT_SECONDS = 10
_LINK = re.compile(r'<a href="([^"]*)">([^<]*)</a>')


@dataclass(frozen=True, slots=True)
class Service:
    """Somebody to tell.

    Attributes:
        key: Tells it apart from others, without its secrets.
        label: What people call it.
        plugin: Apprise's.
    """

    key: str
    label: str
    plugin: "NotifyBase" = field(repr=False)

    def send(self, title: str, html: str, draw: Callable[[], bytes | None]) -> bool:
        """Send a message and tell whether the service has taken it.

        Args:
            title: Its title.
            html: Its text.
            draw: Returns the PNG picture that goes with it, where the service takes one.
        """
        from apprise import Apprise, NotifyFormat  # noqa: PLC0415 - optional
        from apprise.attachment.memory import AttachMemory  # noqa: PLC0415

        picture = draw() if self.plugin.attachment_support else None
        attachment = None
        if picture:
            attachment = AttachMemory(picture, name="sensor.png", mimetype="image/png")  # type: ignore[no-untyped-call]
        if self.plugin.resolve_format(NotifyFormat.HTML) == NotifyFormat.TEXT:
            html = _LINK.sub(r"\2: \1", html)  # plain text would lose the address
        with _kept_out_of_logs():
            try:
                return bool(
                    Apprise(self.plugin, asset=self.plugin.asset).notify(
                        title=title,
                        body=html,
                        body_format=NotifyFormat.HTML,
                        attach=attachment,
                    )
                )
            except Exception:  # noqa: BLE001 - whatever a plugin raises may name its URL
                return False


def open_services(urls: Sequence[str]) -> list[Service]:
    """Return the services that Apprise's URLs lead to.

    Raises:
        ConfigurationError: Apprise is not installed, or does not know a URL.
    """
    if not urls:
        return []
    try:
        from apprise import Apprise, AppriseAsset, OverflowMode  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "apprise is not installed, as IOT_ALERT_URLS needs it: run: pip install 'iot-pipeline[alerts]'"
        ) from error
    asset = AppriseAsset(app_id="iot_pipeline", app_desc="Sensor alerts", storage_mode="memory")
    services: list[Service] = []
    for number, url in enumerate(urls, start=1):
        with _kept_out_of_logs():
            plugin = Apprise.instantiate(url, asset=asset)
        if plugin is None:
            raise ConfigurationError(
                f"IOT_ALERT_URLS: Apprise does not know the URL number {number} of {len(urls)}:"
                " see https://appriseit.com for how to write it"
            )
        if plugin.overflow_mode == OverflowMode.UPSTREAM:  # a chat would refuse what is too long for it
            plugin.overflow_mode = OverflowMode.TRUNCATE
        masked: str = plugin.url(privacy=True)  # type: ignore[no-untyped-call]
        key = blake2b(masked.encode(), digest_size=8).hexdigest()
        # Two accounts may differ in their secrets only.
        same = sum(service.key.partition(":")[0] == key for service in services)
        label = f"{plugin.service_name} (number {number} of IOT_ALERT_URLS)"
        services.append(Service(f"{key}:{same}" if same else key, label, plugin))
    return services


def check_heartbeat(url: str) -> None:
    """Make sure, before anything is sent, that a heartbeat's URL can be called.

    Raises:
        ConfigurationError: It is no address of a page.
    """
    if url and not url.startswith(("http://", "https://")):
        raise ConfigurationError("IOT_HEARTBEAT_URL must start with http:// or https://")


def call_heartbeat(url: str) -> bool:
    """Call a URL that has been checked, and tell whether it answers."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS):  # noqa: S310 - checked before
            return True
    except (OSError, ValueError, http.client.HTTPException):  # their texts may name the URL
        return False


@contextmanager
def _kept_out_of_logs() -> Iterator[None]:
    names = ("apprise", "urllib3", "urllib3.connectionpool", "requests")
    before = {logger: logger.disabled for logger in map(logging.getLogger, names)}
    for logger in before:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in before.items():
            logger.disabled = was_disabled
