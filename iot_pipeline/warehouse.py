"""Where the pipeline's tables lie, and who may write to them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from iot_pipeline.errors import ConfigurationError, WarehouseBusyError, WarehouseError
from iot_pipeline.settings import get_settings


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The places in a warehouse directory.

    Attributes:
        root: The directory.
    """

    root: Path

    @property
    def mapping(self) -> Path:
        """The SQLite file of sensor names."""
        return self.root / "mapping.sqlite"

    @property
    def bronze(self) -> Path:
        """The directory of fragments."""
        return self.root / "bronze"

    @property
    def timeseries(self) -> Path:
        """The Delta table of readings."""
        return self.root / "timeseries"

    @property
    def source_files(self) -> Path:
        """The Delta table that lists what has been loaded."""
        return self.root / "source_files"

    @property
    def anomalies(self) -> Path:
        """The Delta table of flagged readings."""
        return self.root / "anomalies"

    @property
    def sensor_models(self) -> Path:
        """The Delta table of fitted models."""
        return self.root / "sensor_models"

    @property
    def report(self) -> Path:
        """The directory of pictures and the page."""
        return self.root / "report"

    def create(self) -> None:
        """Make the directory unless it is there.

        Raises:
            ConfigurationError: It can't be made or written to.
        """
        try:
            self.bronze.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"IOT_WAREHOUSE can't be written to: {self.root} ({error.strerror})"
            ) from error

    @contextmanager
    def writing(self, table: Path) -> Iterator[None]:
        """Make the directory and be the only one who writes a table.

        Raises:
            ConfigurationError: The directory can't be made or written to.
            WarehouseBusyError: Somebody else is writing the table.
            WarehouseError: The disk is full, or another fault of it.
        """
        self.create()
        with (self.root / f".{table.name}.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                writer = lock.read().strip() or "unknown"
                raise WarehouseBusyError(
                    f"process {writer} is writing {table}: try again when it is done"
                ) from error
            lock.seek(0)
            lock.truncate()
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            except OSError as error:
                raise WarehouseError(f"can't write {table}: {error.strerror or error}") from error


def open_warehouse(location: str | Path | None = None) -> Warehouse:
    """Return the warehouse at a directory, by default the setting's.

    Raises:
        ConfigurationError: DuckDB would take the path for a pattern.
    """
    root = Path(location or get_settings().warehouse).absolute()
    if any(character in str(root) for character in "*?["):
        raise ConfigurationError(f"IOT_WAREHOUSE may not contain any of * ? [: {root}")
    return Warehouse(root)


def fragment_path(bronze: Path, fragment: str) -> Path:
    """Return where a fragment's readings are."""
    return bronze / f"{fragment}.parquet"


def rejects_path(bronze: Path, fragment: str) -> Path:
    """Return where a fragment's rejected rows are; there is no such file when it has none."""
    return bronze / f"{fragment}.rejects.parquet"
