"""All settings that users can make, with their defaults; read from the environment only when asked for."""

import os
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from iot_pipeline.errors import ConfigurationError

MOST = 100_000
"""The largest number of days or processes, and the largest score."""
PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings.

    Attributes:
        source: A directory or ``s3://bucket[/prefix]`` that holds ``mapping/`` and ``Timeseries/``.
        warehouse: The directory or ``s3://bucket[/prefix]`` that holds everything the pipeline writes.
        mapping: The directory or URL of ``mapping.sqlite``; by default the warehouse.
        grace_period: How long files of older table versions are kept for readers.
        workers: How many processes the load and the detection may use.
        dask_scheduler: The address of the Dask cluster that they run on instead; empty for none.
        alert_urls: The receivers of alerts, as Apprise URLs. They contain tokens, so ``repr`` hides them.
        alert_min_score: The minimum peak score of an event worth an alert.
        heartbeat_url: The URL called after every successful night; empty for none. ``repr`` hides it.
        explore_url: The URL of the explore page, for the links in alerts; empty for no links.
        explore_user_header: The HTTP header in which a proxy in front of the explore page names the user;
            empty if there is no such proxy: then no header is trusted.
    """

    source: str
    warehouse: str
    mapping: str
    grace_period: timedelta
    workers: int
    dask_scheduler: str
    alert_urls: tuple[str, ...] = field(repr=False)
    alert_min_score: float
    heartbeat_url: str = field(repr=False)
    explore_url: str
    explore_user_header: str


def get_settings() -> Settings:
    """Read the settings from the environment.

    Relative paths in variables are relative to the current directory. The defaults are relative to the
    project's root or, if the package is installed without its project, to the current directory.

    Raises:
        ConfigurationError: A variable has a value that can't be used.
    """
    data = (PROJECT_ROOT if (PROJECT_ROOT / "pyproject.toml").exists() else Path()) / "data"
    warehouse = os.environ.get("IOT_WAREHOUSE") or str(data / "warehouse")
    return Settings(
        source=os.environ.get("IOT_SOURCE") or str(data / "sample"),
        warehouse=warehouse,
        mapping=os.environ.get("IOT_MAPPING") or warehouse,
        grace_period=timedelta(days=_number("IOT_GRACE_DAYS", default=7, least=0)),
        workers=int(_number("IOT_WORKERS", default=available_cores(), least=1)),
        dask_scheduler=os.environ.get("IOT_DASK_SCHEDULER", ""),
        alert_urls=_urls("IOT_ALERT_URLS"),
        alert_min_score=_number("IOT_ALERT_MIN_SCORE", default=8, least=0),
        heartbeat_url=os.environ.get("IOT_HEARTBEAT_URL", "").strip(),
        explore_url=_page("IOT_EXPLORE_URL"),
        explore_user_header=os.environ.get("IOT_EXPLORE_USER_HEADER", "").strip(),
    )


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(name: str, *, default: float, least: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= MOST:
        raise ConfigurationError(f"{name} must be a number from {least:g} to {MOST:,}, not {text!r}")
    return number


def _page(name: str) -> str:
    """Read the address of a web page, without a trailing slash: it becomes a link."""
    url = os.environ.get(name, "").strip().rstrip("/")
    if url and not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{name} must start with http:// or https://, not {url!r}")
    return url


def _urls(name: str) -> tuple[str, ...]:
    """Split at whitespace and at commas followed by a URL, because URLs may contain commas."""
    return tuple(filter(None, re.split(r"\s+|,(?=\s|[\w+.-]+://|$)", os.environ.get(name, ""))))
