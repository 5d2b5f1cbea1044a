"""The interface of a store."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from iot_pipeline.errors import SourceError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

UNFINISHED = ".part"
"""The suffix of a file that is being written; it is renamed when it is complete."""


@dataclass(frozen=True, slots=True, order=True)
class StoredObject:
    """One version of a file or of an S3 object.

    Attributes:
        name: The path below the store, with ``/`` between its parts.
        version: Changes whenever the content does: the ETag on S3, size and times of change of a file.
        size: Length in bytes.
        modified: When it was last written, in microseconds since the epoch (UTC). Not compared: the same
            content written to S3 again is the same version.
    """

    name: str
    version: str
    size: int
    modified: int = field(compare=False)


class ObjectVanishedError(SourceError):
    """The object was deleted after it was listed."""


class ObjectChangedError(SourceError):
    """The object was overwritten after it was listed."""


class Store(Hashable, Protocol):
    """Files in a directory or bucket. Implementations can be pickled and sent to a worker.

    A file appears under its name complete or not at all, and then survives a power loss. A missing file
    raises ``FileNotFoundError``, any other fault of a directory ``OSError``. An object store that does not
    answer raises ``SourceError`` or ``WarehouseUnreachableError``, depending on its setting; one that refuses
    a request raises ``ConfigurationError``.
    """

    @property
    def url(self) -> str:
        """The location as users, Delta readers and DuckDB write it, without a trailing slash."""

    @property
    def setting(self) -> str:
        """The environment variable that names the store."""

    @property
    def delta_options(self) -> dict[str, str] | None:
        """The storage options that ``deltalake`` needs besides the URL."""

    @property
    def parallel_reads(self) -> int:
        """How many objects to read concurrently, so that one is parsed while others are fetched."""

    @property
    def min_deletion_age(self) -> timedelta:
        """How old a file must be before it may be deleted, however short the grace period."""

    def __truediv__(self, name: str) -> Self:
        """Return the store one level down."""

    def create(self) -> None:
        """Create the store unless it exists, and check that it can be written to.

        Raises:
            ConfigurationError: It can't be created or written to.
            WarehouseUnreachableError: The object store does not answer.
        """

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other writers away from a table, as far as the store is able to.

        Raises:
            WarehouseBusyError: Another process is writing it.
            ConfigurationError: The store can't lock files.
        """

    def list_objects(self, prefix: str = "") -> list[StoredObject]:
        """Return all files at any depth whose names start with a prefix, sorted by name.

        None if the store does not exist yet.
        """

    def open_object(self, obj: StoredObject) -> AbstractContextManager[IO[bytes]]:
        """Open exactly the listed version of a source's object.

        Raises:
            ObjectVanishedError: It was deleted.
            ObjectChangedError: It was overwritten; also raised at the end of the ``with`` block.
            ConfigurationError: The credentials don't allow it.
            SourceError: It can't be read.
        """

    def publish(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path to write to; if the block succeeds, the file appears, complete and durable.

        A block that wrote nothing publishes nothing.
        """

    def fetch(self, names: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """Yield local paths of the files, valid within the block."""

    def versions(self, names: Sequence[str]) -> list[str]:
        """Return the version of each file, as in a listing; an empty string if it does not exist."""

    def delete(self, name: str) -> None:
        """Delete a file."""

    def sync(self, name: str, since: str = "") -> None:
        """Make durable what another library wrote to a folder: the files named ``since`` and after."""

    @property
    def duckdb_config(self) -> dict[str, Any]:
        """Settings of a DuckDB database that reads the files, best given when it is opened."""

    def register(self, connection: "DuckDBPyConnection") -> None:
        """Let a DuckDB connection read the files by their URLs."""
