"""A directory as a store."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Self
from uuid import uuid4

from iot_pipeline.errors import ConfigurationError, SourceError, WarehouseBusyError
from iot_pipeline.store._errors import unreachable
from iot_pipeline.store._interface import UNFINISHED, ObjectChangedError, ObjectVanishedError, StoredObject

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class DirectoryStore:
    """The files below a directory.

    Attributes:
        root: The directory.
        setting: The environment variable that names it.
        follow_links: Also list the files behind links to directories; each directory once.
    """

    root: Path
    setting: str = field(default="IOT_WAREHOUSE", compare=False)
    follow_links: bool = field(default=False, compare=False)

    delta_options = None
    parallel_reads = 1
    min_deletion_age = timedelta(0)

    @property
    def url(self) -> str:
        """The directory's path."""
        return str(self.root)

    def __truediv__(self, name: str) -> Self:
        """Return a subdirectory."""
        return replace(self, root=self.root / name)

    def create(self) -> None:
        """Create the directory unless it exists."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"{self.setting} can't be written to: {self.root} ({error.strerror})")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock that is released when the process ends."""
        try:
            lock = (self.root / f".{name}.lock").open("a+")
        except OSError as error:
            raise self._not_writable(error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                writer = lock.read().strip() or "unknown"
                raise WarehouseBusyError(
                    f"process {writer} is writing {self.root / name}: try again when it is done"
                ) from error
            except OSError as error:
                raise ConfigurationError(
                    f"the file system of {self.setting} {self.root} can't lock files ({error.strerror}):"
                    " mount it with locks, or use a local disk or s3://bucket"
                ) from error
            lock.seek(0)
            lock.truncate()
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def list_objects(self, prefix: str = "") -> list[StoredObject]:
        """List the files, entering only the directories that may hold some."""
        try:
            return sorted(self._walk(prefix))
        except OSError as error:
            raise unreachable(self.setting)(f"can't list {error.filename}: {error.strerror}") from error

    def _walk(self, start: str) -> Iterator[StoredObject]:
        """Yield the files of real directories, then those behind links to directories not seen before."""
        # A link to a parent directory would be followed in a circle.
        seen = {_identity(parent) for parent in self.root.resolve().parents}
        directories, links = [("", str(self.root))], list[tuple[str, str]]()
        while directories or links:
            prefix, path = (directories or links).pop()
            try:
                if (identity := _identity(path)) in seen:
                    continue
                seen.add(identity)
                with os.scandir(path) as found:
                    entries = sorted(found, key=lambda entry: entry.name, reverse=True)
            except FileNotFoundError:  # deleted meanwhile
                continue
            for entry in entries:
                name = prefix + entry.name
                if not (name.startswith(start) or start.startswith(f"{name}/")):
                    continue
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        directories.append((f"{name}/", entry.path))
                    elif self.follow_links and entry.is_dir():
                        links.append((f"{name}/", entry.path))
                    elif entry.is_file() and name.startswith(start):
                        stat = entry.stat()
                        modified = stat.st_mtime_ns // 1000
                        yield StoredObject(name, _version(stat), stat.st_size, modified)

    @contextmanager
    def open_object(self, obj: StoredObject) -> Iterator[IO[bytes]]:
        """Open a file and check before and after it is read that it has not changed."""
        try:
            stream = (self.root / obj.name).open("rb")
        except FileNotFoundError as error:
            if not self.root.is_dir():
                raise SourceError(
                    f"{self.setting} {self.root} is not on the machine of this worker"
                ) from error
            raise ObjectVanishedError(f"{obj.name} was deleted while it was loaded") from error
        except OSError as error:
            raise SourceError(f"can't read {obj.name}: {error.strerror}") from error
        with stream:
            self._check_version(stream, obj)
            yield stream
            self._check_version(stream, obj)

    @staticmethod
    def _check_version(stream: IO[bytes], obj: StoredObject) -> None:
        if _version(os.fstat(stream.fileno())) != obj.version:
            raise ObjectChangedError(f"{obj.name} was overwritten while it was loaded")

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """Write to a temporary file beside it, sync, rename, and sync the directory."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid4().hex[:8]}{UNFINISHED}")
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

    def versions(self, names: Sequence[str]) -> list[str]:
        """Return the files' versions: their sizes and times of change."""
        return [self._version_of(name) for name in names]

    def _version_of(self, name: str) -> str:
        try:
            return _version(os.stat(f"{self.root}/{name}"))  # noqa: PTH116 - called for every file of each query
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def delete(self, name: str) -> None:
        """Delete a file."""
        (self.root / name).unlink()

    def sync(self, name: str, since: str = "") -> None:
        """Sync a directory, its files and its parent directories."""
        directory = self.root / name
        for entry in directory.iterdir():
            if entry.name >= since:
                _sync(entry)
        for folder in (directory, self.root, self.root.parent):
            _sync(folder)

    @property
    def duckdb_config(self) -> dict[str, Any]:
        """No threads for reading: a disk answers before another thread takes the request."""
        return {"async_threads": "0"}

    def register(self, connection: "DuckDBPyConnection") -> None:
        """Read what is needed when it is needed."""
        connection.execute("SET GLOBAL disable_parquet_prefetching = true")


def _version(stat: os.stat_result) -> str:
    # The inode's change time distinguishes contents that were given the same size and modification time.
    return f"{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}"


def _identity(path: str | Path) -> tuple[int, int]:
    """Return what identifies a directory, whichever path leads to it."""
    stat = os.stat(path)  # noqa: PTH116 - called for every directory of a listing
    return stat.st_dev, stat.st_ino


def _sync(path: Path) -> None:
    """Wait until a file or the entries of a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
