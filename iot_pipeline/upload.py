"""A directory into an S3 bucket, which is how the sample data gets into an object store."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError
from iot_pipeline.s3 import Bucket
from iot_pipeline.source import DirectorySource, S3Source


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did.

    Attributes:
        uploaded: Files that were new or different.
        unchanged: Files that the bucket had already.
    """

    uploaded: int
    unchanged: int


def upload(directory: Path, location: str) -> UploadReport:
    """Put the files below a directory into a bucket, which is made if there is none. Can be repeated.

    Args:
        directory: Where the files are; their paths below it become the keys.
        location: ``s3://bucket[/prefix]``.

    Raises:
        ConfigurationError: There is no such directory, or the location is not in a bucket.
        SourceError: The bucket can't be made, listed or written to.
    """
    url = urlsplit(location)
    if not directory.is_dir() or url.scheme != "s3" or not url.netloc:
        raise ConfigurationError(
            f"upload needs a directory and s3://bucket[/prefix], not {str(directory)!r} and {location!r}"
        )
    files, target = DirectorySource(directory), S3Source(url.netloc, url.path.strip("/"))
    _ensure_bucket(target.objects)
    present = {obj.key: obj.version for obj in target.list_objects()}
    listed = files.list_objects()
    uploaded = 0
    for obj in listed:
        content = (files.root / obj.key).read_bytes()
        if present.get(obj.key) != hashlib.md5(content, usedforsecurity=False).hexdigest():
            key = f"{target.prefix}/{obj.key}" if target.prefix else obj.key
            with target.objects.readable_errors(f"write {key}"):
                target.objects.client.put_object(Bucket=target.bucket, Key=key, Body=content)
            uploaded += 1
    return UploadReport(uploaded=uploaded, unchanged=len(listed) - uploaded)


def _ensure_bucket(bucket: Bucket) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import, as boto3 is

    with bucket.readable_errors(f"make the bucket {bucket.name}"):
        try:
            bucket.client.head_bucket(Bucket=bucket.name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
                raise
            bucket.client.create_bucket(Bucket=bucket.name)
