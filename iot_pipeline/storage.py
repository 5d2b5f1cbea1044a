"""Where the warehouse's files lie: a directory or an S3 bucket, behind one small interface.

A file appears under its name whole or not at all, and what has appeared survives a power loss. What belongs
here: writing, reading, listing and deleting files. What does not: what the files are.
"""

import fcntl
import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Protocol, Self
from uuid import uuid4

from iot_pipeline.errors import ConfigurationError, WarehouseBusyError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file.

    Attributes:
        name: Below the folder, with ``/`` between its parts.
        written_at: Seconds since the epoch.
    """

    name: str
    written_at: float


class Folder(Hashable, Protocol):
    """A place for files. Implementations can be pickled and sent to a worker.

    What can't be read or written is an ``OSError`` or a ``WarehouseError``, what is not there a
    ``FileNotFoundError``.
    """

    @property
    def url(self) -> str:
        """The place as users, Delta readers and DuckDB write it."""
        ...

    @property
    def delta_options(self) -> dict[str, str] | None:
        """What ``deltalake`` needs to know besides the URL."""
        ...

    @property
    def spares(self) -> timedelta:
        """How old a file must be before it may be deleted, however short the grace period."""
        ...

    def __truediv__(self, name: str) -> Self:
        """Return a folder in this one."""
        ...

    def create(self) -> None:
        """Make the folder unless it is there, and make sure that it can be written to.

        Raises:
            ConfigurationError: It can't.
        """
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Be the only one who writes a table, as far as the place can tell.

        Raises:
            WarehouseBusyError: Somebody else is writing it.
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

    def list_files(self) -> Iterator[StoredFile]:
        """List the files at any depth."""
        ...

    def stamps(self, names: Sequence[str]) -> list[str]:
        """Return for each file what changes when it does; empty for one that is not there."""
        ...

    def renew(self, name: str) -> None:
        """Let a file have been written now; nothing happens when it is not there."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file."""
        ...

    def settle(self, name: str, since: str = "") -> None:
        """Make durable what another library has put into a folder: its files from a name on."""
        ...

    def connect(self, connection: "DuckDBPyConnection") -> None:
        """Let a connection read the files by their URLs."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A directory, and the environment variable that names it."""

    root: Path
    setting: str = field(default="IOT_WAREHOUSE", compare=False)

    delta_options = None
    spares = timedelta(0)

    @property
    def url(self) -> str:
        """The directory's path."""
        return str(self.root)

    def __truediv__(self, name: str) -> Self:
        """Return a directory in this one."""
        return replace(self, root=self.root / name)

    def create(self) -> None:
        """Make the directory unless it is there."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"{self.setting} can't be written to: {self.root} ({error.strerror})"
            ) from error

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock that ends with the process."""
        with (self.root / f".{name}.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                writer = lock.read().strip() or "unknown"
                raise WarehouseBusyError(
                    f"process {writer} is writing {self.root / name}: try again when it is done"
                ) from error
            lock.seek(0)
            lock.truncate()
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """Write beside the file and rename; both are synced."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            yield part
            if part.exists():
                _sync(part)
                part.replace(path)
                _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def fetch(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Yield the files themselves."""
        yield [self.root / name for name in names]

    def list_files(self) -> Iterator[StoredFile]:
        """List the files at any depth."""
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):  # deleted meanwhile
                if path.is_file():
                    yield StoredFile(path.relative_to(self.root).as_posix(), path.stat().st_mtime)

    def stamps(self, names: Sequence[str]) -> list[str]:
        """Return the files' inodes and times of change."""
        return [self._stamp(name) for name in names]

    def _stamp(self, name: str) -> str:
        try:
            stat = os.stat(f"{self.root}/{name}")  # noqa: PTH116 - each query pays for it
        except (FileNotFoundError, NotADirectoryError):
            return ""
        return f"{stat.st_ino}-{stat.st_mtime_ns}"

    def renew(self, name: str) -> None:
        """Set a file's time of change."""
        with suppress(FileNotFoundError):
            os.utime(self.root / name)

    def delete(self, name: str) -> None:
        """Delete a file."""
        (self.root / name).unlink()

    def settle(self, name: str, since: str = "") -> None:
        """Sync a directory, its files and the directories that lead to it."""
        directory = self.root / name
        for entry in directory.iterdir():
            if entry.name >= since:
                _sync(entry)
        for folder in (directory, self.root, self.root.parent):
            _sync(folder)

    def connect(self, connection: "DuckDBPyConnection") -> None:
        """Do nothing: DuckDB reads files by itself."""


def _sync(path: Path) -> None:
    """Wait until a file or the entries of a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
