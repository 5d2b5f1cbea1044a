"""The warehouse in an S3 bucket: its objects as a folder, and as files that DuckDB can read."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from fsspec import AbstractFileSystem

from iot_pipeline.errors import ConfigurationError, WarehouseUnreachableError
from iot_pipeline.s3 import Bucket, ChangedObjectError, MissingObjectError, S3Connection
from iot_pipeline.storage import StoredFile

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FETCH_THREADS = 8
STAMP_THREADS = 32
LONGEST_LOAD = timedelta(days=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class S3Folder:
    """The objects of an S3 bucket below a prefix.

    There is no lock: a killed writer would leave it behind. Two writers are kept apart by their commits: the
    server lets only one of them succeed (see ``delta.commit``), and the other is refused. What that one has
    written has names of its own, so it is in nobody's way; its fragments are found again by the next load.
    What one writer clears away is never what another is about to commit: files younger than the longest load
    are spared.
    """

    bucket: str
    prefix: str = ""
    connection: S3Connection = field(default_factory=S3Connection)
    setting: str = field(default="IOT_WAREHOUSE", compare=False)

    spares = LONGEST_LOAD

    @property
    def url(self) -> str:
        """The URL without a slash at its end."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def delta_options(self) -> dict[str, str]:
        """The endpoint, the region and the credentials."""
        return self.connection.object_store_options()

    def __truediv__(self, name: str) -> Self:
        """Return the objects with a longer prefix."""
        return replace(self, prefix=self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def _bucket(self) -> Bucket:
        return Bucket(self.bucket, self.setting, WarehouseUnreachableError, self.connection)

    def create(self) -> None:
        """Make sure that objects can be written, and that the server refuses to write one twice."""
        bucket = Bucket(self.bucket, self.setting, ConfigurationError, self.connection)
        probe = self._key(f".writable-{uuid4().hex}")
        with bucket.readable_errors(f"write to {self.setting} {self.url}"):
            bucket.client.put_object(Bucket=self.bucket, Key=probe)
        try:
            with bucket.readable_errors("write twice"):
                bucket.client.put_object(Bucket=self.bucket, Key=probe, IfNoneMatch="*")
        except ChangedObjectError:
            return
        finally:
            with bucket.readable_errors(f"delete from {self.setting} {self.url}"):
                bucket.client.delete_object(Bucket=self.bucket, Key=probe)
        raise ConfigurationError(
            f"{self.setting} {self.url}: this S3 server ignores If-None-Match, which keeps two loads apart"
        )

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:  # noqa: ARG002
        """Do nothing: the commit decides."""
        yield

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """Write to a local file and put it as one object, which S3 shows when it has all of it."""
        with TemporaryDirectory() as directory:
            part = Path(directory) / "part"
            yield part
            if part.exists():
                with part.open("rb") as file, self._bucket.readable_errors(f"write {self.url}/{name}"):
                    self._bucket.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=file)

    @contextmanager
    def fetch(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Copy the objects to local files."""
        with TemporaryDirectory() as directory:
            paths = [Path(directory) / str(number) for number in range(len(names))]
            with ThreadPoolExecutor(FETCH_THREADS) as threads:
                list(threads.map(self._fetch, names, paths))
            yield paths

    def _fetch(self, name: str, path: Path) -> None:
        try:
            with path.open("wb") as file:
                self._bucket.fetch(self._key(name), file)
        except MissingObjectError as error:
            raise FileNotFoundError(f"{self.url}/{name}") from error

    def list_files(self) -> Iterator[StoredFile]:
        """List the objects, page by page."""
        folder = self._key("")
        with self._bucket.readable_errors(f"list {self.url}"):
            for page in self._bucket.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=folder
            ):
                for entry in page.get("Contents", []):
                    yield StoredFile(entry["Key"].removeprefix(folder), entry["LastModified"].timestamp())

    def stamps(self, names: Sequence[str]) -> list[str]:
        """Return the objects' ETags and times, asked for side by side."""
        with ThreadPoolExecutor(STAMP_THREADS) as threads:
            return list(threads.map(self._stamp, names))

    def _stamp(self, name: str) -> str:
        try:
            with self._bucket.readable_errors(f"read {self.url}/{name}"):
                answer = self._bucket.client.head_object(Bucket=self.bucket, Key=self._key(name))
        except MissingObjectError:
            return ""
        return f"{answer['ETag']}-{answer['LastModified'].timestamp()}"

    def renew(self, name: str) -> None:
        """Copy an object onto itself."""
        key = self._key(name)
        with suppress(MissingObjectError), self._bucket.readable_errors(f"write {self.url}/{name}"):
            self._bucket.client.copy_object(
                Bucket=self.bucket,
                Key=key,
                CopySource={"Bucket": self.bucket, "Key": key},
                MetadataDirective="REPLACE",
            )

    def delete(self, name: str) -> None:
        """Delete an object."""
        with self._bucket.readable_errors(f"delete {self.url}/{name}"):
            self._bucket.client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def settle(self, name: str, since: str = "") -> None:
        """Do nothing: what S3 has acknowledged is durable."""

    def connect(self, connection: "DuckDBPyConnection") -> None:
        """Register a file system for ``s3://``, in place of the extension that DuckDB would download."""
        connection.register_filesystem(S3Files(self._bucket))


class S3Files(AbstractFileSystem):  # type: ignore[misc]
    """The files ``s3://bucket/key`` of one bucket, for reading, as long as none of them changes.

    DuckDB keeps what it has read in memory and the sizes are kept here, so a question that is asked again
    costs no request.
    """

    protocol = "s3"
    cachable = False

    def __init__(self, bucket: Bucket) -> None:
        """Make the files of a bucket readable."""
        super().__init__()
        self._bucket = bucket
        self._size = cache(self._ask_size)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the path: it is none of a pattern."""
        return [path]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return a file's size."""
        return {"name": path, "size": self._size(self._key(path)), "type": "file"}

    def open(self, path: str, *_: Any, **__: Any) -> "S3File":
        """Open a file for reading."""
        key = self._key(path)
        return S3File(self._bucket, key, self._size(key))

    def modified(self, _path: str) -> datetime:
        """Return a time long ago, always the same: no file changes."""
        return LONG_AGO

    def _key(self, path: str) -> str:
        return path.removeprefix("s3://").removeprefix(f"{self._bucket.name}/")

    def _ask_size(self, key: str) -> int:
        try:
            with self._bucket.readable_errors(f"read {key}"):
                return self._bucket.client.head_object(Bucket=self._bucket.name, Key=key)["ContentLength"]
        except MissingObjectError as error:
            raise FileNotFoundError(key) from error


class S3File:
    """An open file.

    Each thread has a position of its own: DuckDB moves to a place and reads there in two calls, and another
    thread may do so in between.
    """

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        """Open an object of a size."""
        self._bucket = bucket
        self._key = key
        self.size = size
        self._of_thread = threading.local()

    def tell(self) -> int:
        """Return the position."""
        return getattr(self._of_thread, "position", 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, counted from the start (0), the present one (1) or the end (2)."""
        position: int = offset + (0, self.tell(), self.size)[whence]
        self._of_thread.position = position
        return position

    def read(self, length: int = -1) -> bytes:
        """Read bytes, by default all that are left."""
        start = self.tell()
        end = self.size if length < 0 else min(start + length, self.size)
        content = self._bucket.read_range(self._key, start, end) if end > start else b""
        self._of_thread.position = start + len(content)
        return content

    def close(self) -> None:
        """Do nothing: nothing is held."""
