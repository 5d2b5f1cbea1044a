"""Where the pipeline's tables are, and how they are locked for writing."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from iot_pipeline.errors import ConfigurationError, WarehouseError
from iot_pipeline.settings import get_settings
from iot_pipeline.store import Store, one_line, open_store

MAPPING = "mapping.sqlite"
"""The SQLite file of sensor names."""
_DATA_FILE = re.compile(r"(^|/)part-[0-9a-f]{32}\.parquet$")
"""What ``new_data_file`` returns, also in the folder of a partition."""


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The folders of a warehouse.

    Attributes:
        root: The warehouse's folder.
        mapping: The folder of ``mapping.sqlite``; the root, unless ``IOT_MAPPING`` is set.
    """

    root: Store
    mapping: Store

    @property
    def url(self) -> str:
        """The directory's path or the S3 URL."""
        return self.root.url

    @property
    def bronze(self) -> Store:
        """The fragments."""
        return self.root / "bronze"

    @property
    def timeseries(self) -> Store:
        """The Delta table of readings."""
        return self.root / "timeseries"

    @property
    def source_files(self) -> Store:
        """The Delta table that lists the loaded files: the ledger."""
        return self.root / "source_files"

    @property
    def events(self) -> Store:
        """The Delta table of events."""
        return self.root / "events"

    @property
    def anomalies(self) -> Store:
        """The Delta table of flagged readings."""
        return self.root / "anomalies"

    @property
    def incidents(self) -> Store:
        """The Delta table of the incident that each event belongs to."""
        return self.root / "incidents"

    @property
    def sensor_models(self) -> Store:
        """The Delta table of fitted models."""
        return self.root / "sensor_models"

    @property
    def annotations(self) -> Store:
        """The Delta table of people's annotations."""
        return self.root / "annotations"

    @property
    def report(self) -> Store:
        """The pictures and the page."""
        return self.root / "report"

    @property
    def alerts(self) -> Store:
        """The Delta table of alert digests, sent and pending."""
        return self.root / "alerts"

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Create the warehouse if missing, and lock a table for writing if the store has locks.

        Raises:
            ConfigurationError: The warehouse can't be created or written to.
            WarehouseBusyError: Another process is writing the table.
            WarehouseError: The disk is full, or writing failed for another reason.
        """
        self.root.create()
        with self.root.lock(name), readable_write_errors(f"{self.url}/{name}"):
            yield


@contextmanager
def readable_write_errors(url: str) -> Iterator[None]:
    """Raise errors of writing a file or table, such as a full disk, as a one-line ``WarehouseError``."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise WarehouseError(f"can't write {url}: {reason}") from error


def open_folder(location: str | Path, setting: str = "IOT_WAREHOUSE") -> Store:
    """Return the folder at a path or an ``s3://bucket[/prefix]`` URL.

    Args:
        location: The path or URL.
        setting: The environment variable that names it, for errors.

    Raises:
        ConfigurationError: The location is invalid.
    """
    text = str(location)
    if text.startswith("s3://") and not re.fullmatch(r"s3://[\w.-]+(/[\w.=-]+)*/?", text, re.ASCII):
        raise ConfigurationError(
            f"{setting} {text!r} must be s3://bucket[/prefix] of letters, digits and any of . _ = - /"
        )
    return open_store(location, setting)


def open_warehouse(location: str | Path | None = None) -> Warehouse:
    """Return the warehouse at a directory or an S3 URL, by default ``IOT_WAREHOUSE``.

    Raises:
        ConfigurationError: The location is invalid, or DuckDB would take it for a pattern.
    """
    settings = get_settings()
    root = open_folder(location or settings.warehouse)
    if any(character in root.url for character in "*?["):
        raise ConfigurationError(f"IOT_WAREHOUSE may not contain any of * ? [: {root.url}")
    is_apart = not location and settings.mapping != settings.warehouse
    return Warehouse(root, open_folder(settings.mapping, "IOT_MAPPING") if is_apart else root)


def new_data_file() -> str:
    """Return a name that no file of a table has yet."""
    return f"part-{uuid4().hex}.parquet"


def is_data_file(name: str) -> bool:
    """Return whether a table's file has such a name, so that the pipeline wrote it."""
    return bool(_DATA_FILE.search(name))


def readings_file(fragment: str) -> str:
    """Return the name of a fragment's file of readings in bronze."""
    return f"{fragment}.parquet"


def rejects_file(fragment: str) -> str:
    """Return the name of a fragment's file of rejected rows in bronze; it exists only if there are any."""
    return f"{fragment}.rejects.parquet"
