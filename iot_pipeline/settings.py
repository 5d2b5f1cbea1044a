"""The environment, read in one place and only when asked.

What belongs here: every setting that a user can make, with its default. What does not: what it means.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from iot_pipeline.errors import ConfigurationError

MOST = 100_000
"""Of days or processes."""
PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user can set.

    Attributes:
        source: A directory or ``s3://bucket[/prefix]`` that holds ``mapping/`` and ``Timeseries/``.
        warehouse: The directory or ``s3://bucket[/prefix]`` that holds all that the pipeline makes.
        mapping: Likewise for ``mapping.sqlite`` alone, where it is to stay elsewhere; else the warehouse.
        grace_period: How long files of older table versions are kept for those who still read them.
        workers: How many processes the load and the detection may use.
        dask_scheduler: The address of the Dask cluster that they run on instead; empty for none.
        explore_url: Where people reach the page of `iot-pipeline explore`; empty for this machine.
    """

    source: str
    warehouse: str
    mapping: str
    grace_period: timedelta
    workers: int
    dask_scheduler: str
    explore_url: str


def get_settings() -> Settings:
    """Read the settings from the environment.

    Relative paths in variables are relative to the current directory, the defaults to the project's root or,
    where the package is installed without its project, to the current directory too.

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
        dask_scheduler=os.environ.get("IOT_DASK_SCHEDULER") or "",
        explore_url=os.environ.get("IOT_EXPLORE_URL") or "",
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
