"""Where the CSV files come from: a directory or an S3 bucket, behind one small interface.

What belongs here: listing and reading objects. What does not: what the objects mean.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Protocol, cast
from urllib.parse import urlsplit

from iot_pipeline.clock import to_instant
from iot_pipeline.errors import ConfigurationError, SourceError
from iot_pipeline.s3 import Bucket, ChangedObjectError, MissingObjectError, S3Connection
from iot_pipeline.settings import get_settings

SPOOL_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class SourceObject:
    """One version of one object.

    Attributes:
        key: The object's name below the source, with ``/`` between its parts.
        version: Changes whenever the content does: the ETag on S3, size and times of change of a file.
        size: Length in bytes.
        modified: When it was last written, in microseconds since the epoch.
    """

    key: str
    version: str
    size: int
    modified: int = field(compare=False)


class ObjectVanishedError(SourceError):
    """The object was deleted after it was listed."""


class ObjectChangedError(SourceError):
    """The object was overwritten after it was listed."""


class Source(Protocol):
    """A place with objects. Implementations can be pickled and sent to a worker."""

    def list_objects(self) -> list[SourceObject]:
        """List all objects in the order of their keys.

        Raises:
            ConfigurationError: There is no such bucket, or the credentials are wrong.
            SourceError: The source can't be listed.
        """
        ...

    def open_object(self, obj: SourceObject) -> AbstractContextManager[IO[bytes]]:
        """Open exactly the listed version of an object.

        Raises:
            ObjectVanishedError: It is gone.
            ObjectChangedError: It has another version now; also raised at the end of the ``with`` block.
            ConfigurationError: The credentials don't allow it.
            SourceError: It can't be read.
        """
        ...


def open_source(location: str, connection: S3Connection | None = None) -> Source:
    """Return the source at a directory or an ``s3://bucket[/prefix]`` URL.

    Args:
        location: The directory or URL.
        connection: How to reach the S3 server.

    Raises:
        ConfigurationError: There is no such directory, or the URL names no bucket.
    """
    if location.startswith("s3://"):
        url = urlsplit(location)
        if not url.netloc:
            raise ConfigurationError(f"IOT_SOURCE {location!r} names no bucket: write s3://bucket[/prefix]")
        return S3Source(url.netloc, url.path.strip("/"), connection or S3Connection())
    if "://" in location:
        raise ConfigurationError(f"IOT_SOURCE {location!r} must be a directory or s3://bucket[/prefix]")
    root = Path(location).absolute()
    if not root.is_dir():
        raise ConfigurationError(f"IOT_SOURCE is not a directory: {root}")
    return DirectorySource(root)


def as_source(source: str | Source | None) -> Source:
    """Return the source that a caller means: an open one, a location, or by default the setting's."""
    if source is None or isinstance(source, str):
        return open_source(source or get_settings().source)
    return source


@dataclass(frozen=True)
class DirectorySource:
    """The files below a directory."""

    root: Path

    def list_objects(self) -> list[SourceObject]:
        """List all files, following no links to directories."""
        return sorted(self._walk(str(self.root), ""))

    def _walk(self, directory: str, prefix: str) -> Iterator[SourceObject]:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._walk(entry.path, f"{prefix}{entry.name}/")
                    elif entry.is_file():
                        stat = entry.stat()
                        yield SourceObject(
                            prefix + entry.name, _file_version(stat), stat.st_size, stat.st_mtime_ns // 1000
                        )
        except OSError as error:
            raise SourceError(f"can't list {directory}: {error.strerror}") from error

    @contextmanager
    def open_object(self, obj: SourceObject) -> Iterator[IO[bytes]]:
        """Open a file; that it did not change is checked before and after it is read."""
        try:
            stream = (self.root / obj.key).open("rb")
        except FileNotFoundError as error:
            if not self.root.is_dir():
                raise SourceError(f"IOT_SOURCE {self.root} is not on the machine of this worker") from error
            raise ObjectVanishedError(f"{obj.key} was deleted while it was loaded") from error
        except OSError as error:
            raise SourceError(f"can't read {obj.key}: {error.strerror}") from error
        with stream:
            self._check_version(stream, obj)
            yield stream
            self._check_version(stream, obj)

    @staticmethod
    def _check_version(stream: IO[bytes], obj: SourceObject) -> None:
        if _file_version(os.fstat(stream.fileno())) != obj.version:
            raise ObjectChangedError(f"{obj.key} was overwritten while it was loaded")


def _file_version(stat: os.stat_result) -> str:
    # The time of the inode's change tells apart two contents that somebody gave the same size and time.
    return f"{stat.st_size:x}-{stat.st_mtime_ns:x}-{stat.st_ctime_ns:x}"


@dataclass(frozen=True)
class S3Source:
    """The objects of an S3 bucket below a prefix."""

    bucket: str
    prefix: str = ""
    connection: S3Connection = field(default_factory=S3Connection)

    def list_objects(self) -> list[SourceObject]:
        """List all objects below the prefix, page by page."""
        folder = f"{self.prefix}/" if self.prefix else ""
        where = f"s3://{self.bucket}/{folder}"
        with self.objects.readable_errors(f"list {where}"):
            paginator = self.objects.client.get_paginator("list_objects_v2")
            pages = list(paginator.paginate(Bucket=self.bucket, Prefix=folder))
            if not all("Name" in page for page in pages):
                raise SourceError(f"can't list {where}: no S3 server answers (check AWS_ENDPOINT_URL_S3)")
            return sorted(
                SourceObject(
                    entry["Key"].removeprefix(folder),
                    entry["ETag"].strip('"'),
                    entry["Size"],
                    to_instant(entry["LastModified"]),
                )
                for page in pages
                for entry in page.get("Contents", [])
            )

    @contextmanager
    def open_object(self, obj: SourceObject) -> Iterator[IO[bytes]]:
        """Fetch an object whole, verify its length and checksum, and open the copy."""
        key = f"{self.prefix}/{obj.key}" if self.prefix else obj.key
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            stream = cast("IO[bytes]", spool)
            try:
                self.objects.fetch(key, stream, label=obj.key, version=obj.version, size=obj.size)
            except MissingObjectError as error:
                raise ObjectVanishedError(f"can't {error}: it was deleted while it was loaded") from error
            except ChangedObjectError as error:
                raise ObjectChangedError(f"can't {error}: it was overwritten while it was loaded") from error
            stream.seek(0)
            yield stream

    @property
    def objects(self) -> Bucket:
        """The bucket."""
        return Bucket(self.bucket, "IOT_SOURCE", SourceError, self.connection)
