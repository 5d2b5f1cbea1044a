"""An S3 bucket as a store."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Self
from uuid import uuid4

from iot_pipeline.errors import ConfigurationError
from iot_pipeline.store._checksums import Blocks, md5
from iot_pipeline.store._connection import ATTEMPTS, S3Connection
from iot_pipeline.store._errors import one_line, readable_errors, unreachable
from iot_pipeline.store._interface import ObjectChangedError, ObjectVanishedError, StoredObject

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from mypy_boto3_s3 import S3Client

SPOOL_BYTES = 32 * 2**20
FETCH_THREADS = 8
VERSION_THREADS = 32
LONGEST_LOAD = timedelta(days=1)
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What S3 says about an object without its content.

    Attributes:
        etag: Its version.
        size: Length in bytes.
        metadata: The user-defined metadata stored with it.
    """

    etag: str
    size: int
    metadata: dict[str, str]


@dataclass(frozen=True)
class S3Store:
    """The objects of an S3 bucket below a prefix.

    There is no lock, because a killed writer would leave it behind. Commits keep two writers apart instead:
    the server accepts only one of them (see ``delta.commit``). The files of the refused writer have unique
    names and harm nobody; the next load reuses its fragments. One writer's cleanup never deletes what another
    is about to commit, because nothing younger than the longest load is deleted.

    Attributes:
        bucket: The bucket's name.
        prefix: What the keys start with, without leading or trailing slashes; may be empty.
        connection: How to reach the server.
        setting: The environment variable that names the store.
    """

    bucket: str
    prefix: str = ""
    connection: S3Connection = field(default_factory=S3Connection)
    setting: str = field(default="IOT_WAREHOUSE", compare=False)

    parallel_reads = 3
    min_deletion_age = LONGEST_LOAD

    @property
    def url(self) -> str:
        """The URL, without a trailing slash."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def delta_options(self) -> dict[str, str]:
        """The endpoint, the region and the credentials."""
        with self._errors(f"reach {self.url}"):
            return self.connection.object_store_options()

    def __truediv__(self, name: str) -> Self:
        """Return the objects with a longer prefix."""
        return replace(self, prefix=self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def _client(self) -> "S3Client":
        return self.connection.client

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return readable_errors(what, self.setting)

    def create(self) -> None:
        """Check that objects can be written and that the server honours ``If-None-Match``."""
        probe = self._key(f".writable-{uuid4().hex}")
        with suppress(ObjectChangedError), self._errors(f"write to {self.setting} {self.url}"):
            self._client.put_object(Bucket=self.bucket, Key=probe)
            try:
                self._client.put_object(Bucket=self.bucket, Key=probe, IfNoneMatch="*")
            finally:
                self._client.delete_object(Bucket=self.bucket, Key=probe)
            raise ConfigurationError(
                f"{self.setting} {self.url}: this S3 server ignores If-None-Match,"
                " which keeps two loads apart"
            )

    def create_bucket(self) -> None:
        """Create the bucket in the connection's region, unless it exists."""
        what = f"make the bucket {self.bucket}"
        try:
            with self._errors(what):
                self._client.head_bucket(Bucket=self.bucket)
        except FileNotFoundError:
            with self._errors(what):
                region = self._client.meta.region_name
                elsewhere: Any = {"CreateBucketConfiguration": {"LocationConstraint": region}}
                self._client.create_bucket(Bucket=self.bucket, **({} if region == "us-east-1" else elsewhere))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:  # noqa: ARG002
        """Do nothing: the commit decides between two writers."""
        yield

    def list_objects(self, prefix: str = "") -> list[StoredObject]:
        """List the objects page by page."""
        folder = self._key("")
        where = f"s3://{self.bucket}/{folder}"
        with self._errors(f"list {where}"):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = list(paginator.paginate(Bucket=self.bucket, Prefix=folder + prefix))
        if not all("Name" in page for page in pages):
            raise unreachable(self.setting)(
                f"can't list {where}: no S3 server answers (check AWS_ENDPOINT_URL_S3)"
            )
        return sorted(
            StoredObject(
                entry["Key"].removeprefix(folder),
                entry["ETag"].strip('"'),
                entry["Size"],
                round(entry["LastModified"].timestamp() * 1_000_000),
            )
            for page in pages
            for entry in page.get("Contents", [])
        )

    @contextmanager
    def open_object(self, obj: StoredObject) -> Iterator[IO[bytes]]:
        """Download the whole object, verify its length and checksum, and open the copy."""
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as stream:
            try:
                self._download(obj.name, stream, size=obj.size, label=obj.name, IfMatch=f'"{obj.version}"')
            except FileNotFoundError as error:
                raise ObjectVanishedError(f"{obj.name} was deleted while it was loaded") from error
            stream.seek(0)
            yield stream

    def _download(
        self,
        name: str,
        to: IO[bytes],
        *,
        size: int | None = None,
        label: str = "",
        verify: Callable[[Any, IO[bytes]], bool] | None = None,
        **request: Any,
    ) -> None:
        """Download an object, or the range of it that is requested, into a file, and verify it.

        It has to be as long as expected, by default as the server announces. ``verify`` takes the server's
        answer and the file and returns whether the content is right; by default the MD5 is compared. Errors
        call the object by its label, by default its URL.

        Raises:
            FileNotFoundError: There is no such object.
            ObjectChangedError: The condition does not hold.
            SourceError: It can't be read. For a warehouse, this is a WarehouseUnreachableError.
        """
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - slow to import, as boto3 is

        label = label or f"{self.url}/{name}"
        for _ in range(ATTEMPTS):
            to.seek(0)
            to.truncate()
            try:
                with self._errors(f"read {label}"):
                    answer = self._client.get_object(Bucket=self.bucket, Key=self._key(name), **request)
                for part in answer["Body"].iter_chunks(2**20):
                    to.write(part)
            except BotoCoreError as error:
                fault = one_line(error)
            else:
                expected = answer["ContentLength"] if size is None else size
                if to.tell() != expected:
                    fault = f"{to.tell()} bytes arrived instead of {expected}"
                elif not (verify or _has_md5_of_etag)(answer, to):
                    fault = "its content does not match its checksum"
                else:
                    return
        raise unreachable(self.setting)(f"can't read {label}: after {ATTEMPTS} attempts {fault}")

    def describe(self, name: str) -> ObjectInfo:
        """Request an object's description without its content.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._errors(f"read {self.url}/{name}"):
            answer = self._client.head_object(Bucket=self.bucket, Key=self._key(name))
        return ObjectInfo(answer["ETag"].strip('"'), answer["ContentLength"], answer["Metadata"])

    def read_blocks(self, name: str, info: ObjectInfo, start: int, end: int) -> tuple[int, bytes]:
        """Read at least a range of an object, verified by the block checksums stored with it.

        An object without block checksums (from an earlier release) is read whole and verified by its MD5.

        Args:
            name: The object's name.
            info: The object's description.
            start: The first byte of the range.
            end: The byte after the last one.

        Returns:
            The position of the content's first byte, and the content.
        """
        content = BytesIO()
        blocks = Blocks.from_metadata(info.metadata)
        if blocks is None:
            self._download(name, content, size=info.size)
            return 0, content.getvalue()
        start, end = blocks.widen(start, end)
        end = min(end, info.size)
        self._download(
            name,
            content,
            size=end - start,
            verify=lambda _answer, _file: blocks.verify(start, content.getvalue()),
            Range=f"bytes={start}-{end - 1}",
        )
        return start, content.getvalue()

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """Write to a local file and upload it as one object, which S3 shows once it is complete."""
        with TemporaryDirectory() as directory:
            part = Path(directory) / "part"
            yield part
            if part.exists():
                self.put(name, part)

    def put(self, name: str, path: Path) -> None:
        """Upload a file as one object, with the checksums of its blocks."""
        with path.open("rb") as file, self._errors(f"write {self.url}/{name}"):
            metadata = Blocks.of_file(file).to_metadata()
            self._client.put_object(Bucket=self.bucket, Key=self._key(name), Body=file, Metadata=metadata)

    @contextmanager
    def fetch(self, names: Sequence[str]) -> Iterator[list[Path]]:
        """Download the objects to local files."""
        with TemporaryDirectory() as directory:
            paths = [Path(directory) / str(number) for number in range(len(names))]
            with ThreadPoolExecutor(FETCH_THREADS) as threads:
                list(threads.map(self._fetch, names, paths))
            yield paths

    def _fetch(self, name: str, path: Path) -> None:
        with path.open("w+b") as file:
            self._download(name, file)

    def versions(self, names: Sequence[str]) -> list[str]:
        """Return the objects' ETags, requested concurrently."""
        with ThreadPoolExecutor(VERSION_THREADS) as threads:
            return list(threads.map(self._version_of, names))

    def _version_of(self, name: str) -> str:
        try:
            return self.describe(name).etag
        except FileNotFoundError:
            return ""

    def delete(self, name: str) -> None:
        """Delete an object."""
        with self._errors(f"delete {self.url}/{name}"):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def sync(self, name: str, since: str = "") -> None:
        """Do nothing: what S3 acknowledges is durable."""

    @property
    def duckdb_config(self) -> dict[str, Any]:
        """DuckDB's own."""
        return {}

    def register(self, connection: "DuckDBPyConnection") -> None:
        """Register a file system for ``s3://``, instead of the extension that DuckDB would download."""
        from iot_pipeline.store._duckdb import S3Files  # noqa: PLC0415 - only queries on S3 need fsspec

        connection.register_filesystem(S3Files(self))


def _has_md5_of_etag(answer: Any, file: IO[bytes]) -> bool:
    """Return whether an object's content matches its ETag, or the ETag is not an MD5.

    With server-side encryption the ETag may look like an MD5 without being one.
    """
    etag = str(answer["ETag"]).strip('"')
    encryption = str(answer.get("ServerSideEncryption", ""))
    is_encrypted = encryption.startswith("aws:") or "SSECustomerAlgorithm" in answer
    file.seek(0)
    return is_encrypted or not _MD5.fullmatch(etag) or md5(file) == etag
