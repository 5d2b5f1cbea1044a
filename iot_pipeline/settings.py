"""The environment, read in one place and only when asked.

What belongs here: every setting that a user can make, with its default. What does not: what it means.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from iot_pipeline.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user can set.

    Attributes:
        source: A directory or ``s3://bucket[/prefix]`` that holds ``mapping/`` and ``Timeseries/``.
        warehouse: The directory that holds all that the pipeline makes.
        grace_period: How long files of older table versions are kept for those who still read them.
        workers: How many processes the load and the detection may use.
    """

    source: str
    warehouse: Path
    grace_period: timedelta
    workers: int


def get_settings() -> Settings:
    """Read the settings from the environment.

    Relative paths in variables are relative to the current directory, the defaults to the project's root.

    Raises:
        ConfigurationError: A variable has a value that can't be used.
    """
    return Settings(
        source=os.environ.get("IOT_SOURCE") or str(PROJECT_ROOT / "data" / "sample"),
        warehouse=Path(os.environ.get("IOT_WAREHOUSE") or PROJECT_ROOT / "data" / "warehouse"),
        grace_period=timedelta(days=_number("IOT_GRACE_DAYS", default=7, least=0)),
        workers=int(_number("IOT_WORKERS", default=available_cores(), least=1)),
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
    if not number >= least:
        raise ConfigurationError(f"{name} must be a number of at least {least:g}, not {text!r}")
    return number
