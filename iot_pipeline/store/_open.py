"""Opens the store at a location, as users write it."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError
from iot_pipeline.settings import get_settings
from iot_pipeline.store._connection import S3Connection
from iot_pipeline.store._directory import DirectoryStore
from iot_pipeline.store._interface import Store
from iot_pipeline.store._s3 import S3Store


def open_store(
    location: str | Path, setting: str = "IOT_WAREHOUSE", connection: S3Connection | None = None
) -> Store:
    """Return the store at a directory or an ``s3://bucket[/prefix]`` URL, which need not exist yet.

    Args:
        location: The directory or URL.
        setting: The environment variable that names it, for errors.
        connection: How to reach the S3 server; by default from the standard variables and files.

    Raises:
        ConfigurationError: The location is neither.
    """
    text = str(location)
    url = urlsplit(text)
    if text.startswith("s3://") and url.netloc:
        return S3Store(url.netloc, url.path.strip("/"), connection or S3Connection(), setting)
    if re.match(r"[A-Za-z][\w+.-]*:/", text):
        raise ConfigurationError(f"{setting} {text!r} must be a directory or s3://bucket[/prefix]")
    return DirectoryStore(Path(location).absolute(), setting)


def open_source(source: str | Store | None = None, connection: S3Connection | None = None) -> Store:
    """Return the source at a directory or an ``s3://bucket[/prefix]`` URL.

    Args:
        source: The directory or URL, by default ``IOT_SOURCE``; an open source is returned as it is.
        connection: How to reach the S3 server.

    Raises:
        ConfigurationError: There is no such directory, or the URL has no bucket.
    """
    if not isinstance(source, str | None):
        return source
    store = open_store(source or get_settings().source, "IOT_SOURCE", connection)
    if not isinstance(store, DirectoryStore):
        return store
    if not store.root.is_dir():
        raise ConfigurationError(f"IOT_SOURCE is not a directory: {store.root}")
    return DirectoryStore(store.root, store.setting, follow_links=True)
