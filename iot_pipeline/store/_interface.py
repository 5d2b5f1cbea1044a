"""The interface of a place for files."""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self

from iot_pipeline.errors import SourceError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

UNFINISHED = ".part"
"""The suffix of a file that is being written; it is renamed when it is whole."""


@dataclass(frozen=True, slots=True, order=True)
class StoredObject:
    """One version of a file or of an S3 object.

    Attributes:
        name: Below the store, with ``/`` between its parts.
        version: Changes whenever the content does: the ETag on S3, size and times of change of a file.
        size: Length in bytes.
        modified: When it was last written, in microseconds since the epoch (UTC). Not compared: the same
            content that is written again to S3 is the same version.
    """

    name: str
    version: str
    size: int
    modified: int = field(default=0, compare=False)


class ObjectVanishedError(SourceError):
    """The object was deleted after it was listed."""


class ObjectChangedError(SourceError):
    """The object was overwritten after it was listed."""


class Store(Hashable, Protocol):
    """A place for files. Implementations can be pickled and sent to a worker.

    A file appears under its name whole or not at all, and what has appeared survives a power loss. A file
    that is not there is a ``FileNotFoundError``, another fault of a directory an ``OSError``; an object store
    that does not answer is a ``SourceError`` or a ``WarehouseUnreachableError``, depending on the setting
    that names it, and one that refuses a ``ConfigurationError``.
    """

    @property
    def url(self) -> str:
        """The place as users, Delta readers and DuckDB write it, without a slash at the end."""
        ...

    @property
    def setting(self) -> str:
        """The environment variable that names the place."""
        ...

    @property
    def delta_options(self) -> dict[str, str] | None:
        """What ``deltalake`` needs to know besides the URL."""
        ...

    @property
    def parallel_reads(self) -> int:
        """How many objects to read side by side while one of them is worked on."""
        ...

    @property
    def min_deletion_age(self) -> timedelta:
        """How old a file must be before it may be deleted, however short the grace period."""
        ...

    def __truediv__(self, name: str) -> Self:
        """Return the place one level down."""
        ...

    def create(self) -> None:
        """Make the place unless it exists, and make sure that it can be written to.

        Raises:
            ConfigurationError: It can't.
            WarehouseUnreachableError: The object store does not answer.
        """
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Be the only one who writes a table, as far as the place can tell.

        Raises:
            WarehouseBusyError: Somebody else is writing it.
            ConfigurationError: The place can't lock.
        """
        ...

    def list_objects(self) -> list[StoredObject]:
        """Return all files at any depth, by name; none where there is no such place yet."""
        ...

    def open_object(self, obj: StoredObject) -> AbstractContextManager[IO[bytes]]:
        """Open exactly the listed version of a source's object.

        Raises:
            ObjectVanishedError: It is gone.
            ObjectChangedError: It has another version now; also raised at the end of the ``with`` block.
            ConfigurationError: The credentials don't allow it.
            SourceError: It can't be read.
        """
        ...

    def publish(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path to write to; when the block ends well, its file appears, whole and durable.

        A block that wrote nothing publishes nothing.
        """
        ...

    def fetch(self, names: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """Yield paths to read files from, in the block."""
        ...

    def versions(self, names: Sequence[str]) -> list[str]:
        """Return the version of each file, as a listing has it; empty for one that does not exist."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file."""
        ...

    def sync(self, name: str, since: str = "") -> None:
        """Make durable what another library has written into a folder: its files from a name on."""
        ...

    def register(self, connection: "DuckDBPyConnection") -> None:
        """Let a DuckDB connection read the files by their URLs."""
        ...
