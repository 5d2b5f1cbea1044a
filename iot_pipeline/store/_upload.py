"""Uploads a directory to an S3 bucket, for example the sample data."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from iot_pipeline.errors import ConfigurationError
from iot_pipeline.store._checksums import md5
from iot_pipeline.store._interface import StoredObject
from iot_pipeline.store._open import open_source, open_store
from iot_pipeline.store._s3 import S3Store

THREADS = 16


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did.

    Attributes:
        uploaded: Files that were new or different.
        unchanged: Files that the bucket already had.
    """

    uploaded: int
    unchanged: int


def upload(directory: Path, location: str) -> UploadReport:
    """Upload the files below a directory to a bucket, which is created if missing. Safe to repeat.

    Args:
        directory: Holds the files; their relative paths become the keys.
        location: ``s3://bucket[/prefix]``.

    Raises:
        ConfigurationError: There is no such directory, or the location is not an S3 URL.
        SourceError: The bucket can't be created, listed or written to.
    """
    target = open_store(location, "IOT_SOURCE")
    if not directory.is_dir() or not isinstance(target, S3Store):
        raise ConfigurationError(
            f"upload needs a directory and s3://bucket[/prefix], not {str(directory)!r} and {location!r}"
        )
    target.create_bucket()
    present = {obj.name: obj.version for obj in target.list_objects()}

    def send(obj: StoredObject) -> bool:
        path = directory / obj.name
        with path.open("rb") as file:
            if present.get(obj.name) == md5(file):
                return False
        target.put(obj.name, path)
        return True

    with ThreadPoolExecutor(THREADS) as threads:
        sent = list(threads.map(send, open_source(str(directory)).list_objects()))
    return UploadReport(uploaded=sum(sent), unchanged=len(sent) - sum(sent))
