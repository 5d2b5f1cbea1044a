"""Where the CSV files come from: a directory or an S3 bucket, behind one small interface.

What belongs here: listing and reading objects. What does not: what the objects mean.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError, SourceError
from iot_pipeline.settings import get_settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SPOOL_BYTES = 32 * 2**20
READ_ATTEMPTS = 4
CONNECT_SECONDS = 5
READ_SECONDS = 30
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, order=True)
class SourceObject:
    """One version of one object.

    Attributes:
        key: The object's name below the source, with ``/`` between its parts.
        version: Changes whenever the content does: the ETag on S3, size and times of change of a file.
        size: Length in bytes.
    """

    key: str
    version: str
    size: int


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


@dataclass(frozen=True, slots=True)
class S3Connection:
    """How to reach an S3 server; what is None comes from boto3's standard variables, profiles and files."""

    endpoint_url: str | None = None
    region_name: str | None = None
    profile_name: str | None = None
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)


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
                        yield SourceObject(prefix + entry.name, _file_version(stat), stat.st_size)
        except OSError as error:
            raise SourceError(f"can't list {directory}: {error.strerror}") from error

    @contextmanager
    def open_object(self, obj: SourceObject) -> Iterator[IO[bytes]]:
        """Open a file; that it did not change is checked before and after it is read."""
        try:
            stream = (self.root / obj.key).open("rb")
        except FileNotFoundError as error:
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
    connection: S3Connection = S3Connection()

    @property
    def client(self) -> "S3Client":
        """The process' client for the server."""
        environment = tuple(item for item in os.environ.items() if item[0].startswith("AWS_"))
        return _s3_client(self.connection, environment)

    def list_objects(self) -> list[SourceObject]:
        """List all objects below the prefix, page by page."""
        folder = f"{self.prefix}/" if self.prefix else ""
        where = f"s3://{self.bucket}/{folder}"
        with readable_errors(f"list {where}"):
            paginator = self.client.get_paginator("list_objects_v2")
            pages = list(paginator.paginate(Bucket=self.bucket, Prefix=folder))
            if not all("Name" in page for page in pages):
                raise SourceError(f"can't list {where}: no S3 server answers (check AWS_ENDPOINT_URL_S3)")
            return sorted(
                SourceObject(entry["Key"].removeprefix(folder), entry["ETag"].strip('"'), entry["Size"])
                for page in pages
                for entry in page.get("Contents", [])
            )

    @contextmanager
    def open_object(self, obj: SourceObject) -> Iterator[IO[bytes]]:
        """Fetch an object whole, verify its length and checksum, and open the copy."""
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            self._fetch(obj, cast("IO[bytes]", spool))
            spool.seek(0)
            yield cast("IO[bytes]", spool)

    def _fetch(self, obj: SourceObject, spool: IO[bytes]) -> None:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        key = f"{self.prefix}/{obj.key}" if self.prefix else obj.key
        for _ in range(READ_ATTEMPTS):
            spool.seek(0)
            spool.truncate()
            digest = hashlib.md5(usedforsecurity=False)
            try:
                with readable_errors(f"read {obj.key}"):
                    answer = self.client.get_object(Bucket=self.bucket, Key=key, IfMatch=f'"{obj.version}"')
                for part in answer["Body"].iter_chunks(2**20):
                    digest.update(part)
                    spool.write(part)
            except BotoCoreError as error:
                fault = _one_line(error)
            else:
                if spool.tell() != obj.size:
                    fault = f"{spool.tell()} bytes came instead of {obj.size}"
                elif _MD5.fullmatch(obj.version) and digest.hexdigest() != obj.version:
                    fault = "its content does not match its checksum"
                else:
                    return
        raise SourceError(f"can't read {obj.key}: after {READ_ATTEMPTS} attempts {fault}")


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """Turn boto3's errors into one line that says what to do and holds no secret."""
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 - not Python's
        HTTPClientError,
        NoCredentialsError,
    )

    advice = {
        "NoSuchBucket": "there is no such bucket: check IOT_SOURCE",
        "InvalidAccessKeyId": "unknown access key: check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "wrong secret: check AWS_SECRET_ACCESS_KEY",
        "AccessDenied": "access denied: check the credentials and their rights",
        "403": "access denied: check the credentials and their rights",
    }
    try:
        yield
    except NoCredentialsError as error:
        raise ConfigurationError(
            f"can't {what}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile)"
        ) from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown error")
        if code in {"NoSuchKey", "404"}:
            raise ObjectVanishedError(f"can't {what}: it was deleted while it was loaded") from error
        if code in {"PreconditionFailed", "412"}:
            raise ObjectChangedError(f"can't {what}: it was overwritten while it was loaded") from error
        if code in advice:
            raise ConfigurationError(f"can't {what}: {advice[code]}") from error
        if code.isdigit():  # the answer is none of an S3 server
            code = f"answer {code} (check AWS_ENDPOINT_URL_S3)"
        raise SourceError(f"can't {what}: {code}") from error
    except (ConnectionError, HTTPClientError) as error:
        raise SourceError(f"can't {what}: {_one_line(error)} (check AWS_ENDPOINT_URL_S3)") from error
    except BotoCoreError as error:  # a bucket, a URL or a profile that there can't be
        raise ConfigurationError(
            f"can't {what}: {_one_line(error)} (check IOT_SOURCE, AWS_ENDPOINT_URL_S3 and AWS_PROFILE)"
        ) from error
    except ValueError:  # it repeats the URL, which may hold a password
        raise ConfigurationError(f"can't {what}: AWS_ENDPOINT_URL_S3 is not a URL") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@lru_cache(maxsize=4)
def _s3_client(connection: S3Connection, _environment: tuple[tuple[str, str], ...]) -> "S3Client":
    """Return the process' client; making one takes longer than fetching a dozen objects."""
    import boto3  # noqa: PLC0415 - slow to import, and not needed for a directory
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.session.Session(profile_name=connection.profile_name)
    client = session.client(
        "s3",
        endpoint_url=connection.endpoint_url,
        region_name=connection.region_name or session.region_name or "us-east-1",
        aws_access_key_id=connection.aws_access_key_id,
        aws_secret_access_key=connection.aws_secret_access_key,
        aws_session_token=connection.aws_session_token,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": READ_ATTEMPTS},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=32,
        ),
    )
    if "@" in urlsplit(client.meta.endpoint_url).netloc:
        raise ConfigurationError("AWS_ENDPOINT_URL_S3 holds credentials: set AWS_ACCESS_KEY_ID and so on")
    return client
